"""Large arguments are a file of the journal that the job maps: they arrive whole, whoever ends in between."""

import signal

import numpy as np
import pytest

from pool.model import Outcome
from tests.support.daemons import DaemonProcess, pool_of
from tests.support.waiting import Waiting

POOL = pool_of(1, recycle={"max_jobs": 1000}, limits={"wall_s": 60, "cpu_s": 60, "memory": "1g", "result": "100m"})
ARRAY = np.arange(3_000_000)
SUM = "def main(x):\n    return int(x.sum())"


@pytest.fixture
def daemon(home):
    with DaemonProcess({"default": POOL}, home=home, durability="crash") as it:
        yield it


def nothing_is_left(home):
    assert not list(home.glob("run/w/*/body.sock"))
    assert not list(home.glob("state/journal/bodies/*.job"))


def test_a_job_may_change_its_argument_and_the_next_attempt_gets_what_was_sent(daemon, home, tmp_path):
    code = (
        "import os, signal\n"
        "def main(x, marker):\n"
        "    found = int(x.sum())\n"
        "    x[:] = 0\n"
        "    if not os.path.exists(marker):\n"
        "        open(marker, 'w').close()\n"
        "        os.kill(os.getppid(), signal.SIGKILL)\n"  # the zygote
        "        signal.pause()\n"
        "    return [found, int(x.sum())]"
    )
    with daemon.client(timeout=60) as client:
        result = client.run(code, entry="main", args=[ARRAY, str(tmp_path / "marker")], retries=1)
    assert (result.outcome, result.value, result.attempt) == (Outcome.OK, [int(ARRAY.sum()), 0], 2), result
    nothing_is_left(home)


@pytest.mark.parametrize("point", ["send:Run", "sent:Run"])
def test_a_daemon_that_is_killed_when_it_sends_the_job_does_not_lose_it(point, home, monkeypatch):
    """The worker has the message, and nobody gives it the file: it drops the message, and the next daemon sends it."""
    settings = {"home": home, "durability": "crash"}
    monkeypatch.setenv("POOL_FAILPOINT", f"{point}:0")
    first = DaemonProcess({"default": POOL}, engine="failing", **settings).start()
    with first.client(timeout=600) as client:
        large = {"entry": "main", "args": [ARRAY], "on_disconnect": "keep", "job_id": "large"}
        submission = Waiting(client.submit, SUM, **large)  # Accepted may follow Run, so it may never come
        assert first.process.wait(60) == -signal.SIGKILL
    submission.end()
    with first.client(timeout=60) as client:
        monkeypatch.delenv("POOL_FAILPOINT")
        with DaemonProcess({"default": POOL}, **settings) as second:
            result = client.result("large", 60)
            assert (result.outcome, result.value) == (Outcome.OK, int(ARRAY.sum())), (result, second.words())
            assert client.run(SUM, entry="main", args=[ARRAY]).value == int(ARRAY.sum())
            nothing_is_left(home)


def test_a_job_that_has_its_file_goes_on_when_the_daemon_is_killed(home, tmp_path):
    settings = {"home": home, "durability": "crash"}
    code = (
        "import os, time\n"
        "def main(x, go, began):\n"
        "    open(began, 'w').close()\n"
        "    while not os.path.exists(go): time.sleep(0.01)\n"
        "    return int(x.sum())"
    )
    go, began = tmp_path / "go", tmp_path / "began"
    first = DaemonProcess({"default": POOL}, **settings).start()
    with first.client(timeout=60) as client:
        job_id = client.submit(code, entry="main", args=[ARRAY, str(go), str(began)], on_disconnect="keep")
        first.until(began.exists)
        first.kill()
        with DaemonProcess({"default": POOL}, **settings):
            go.touch()
            result = client.result(job_id, 60)
            assert (result.outcome, result.value, result.attempt) == (Outcome.OK, int(ARRAY.sum()), 1), result


def test_many_large_arguments_of_a_chunk_arrive_in_their_calls(daemon, home):
    arrays = [ARRAY + number for number in range(6)]
    with daemon.client(timeout=60) as client:
        results = list(client.map(SUM, [[each] for each in arrays], entry="main", chunksize=3))
    assert [each.value for each in results] == [int(each.sum()) for each in arrays]
    nothing_is_left(home)


def test_a_graded_job_does_not_get_the_file_that_has_its_grader(daemon):
    grade = "def grade(value, secret):\n    return value == int(secret.sum())"
    with daemon.client(timeout=60) as client:
        result = client.run(SUM, entry="main", args=[ARRAY], grade=grade, grade_args=[ARRAY])
    assert (result.value, result.grade) == (int(ARRAY.sum()), True), result


def test_workers_that_cannot_map_the_file_get_the_arguments_in_the_message(home):
    with DaemonProcess({"default": POOL}, engine="unmapped", home=home, durability="crash") as daemon:
        with daemon.client(timeout=60) as client:
            printing = "def main(x):\n    print('it runs', flush=True)\n    return int(x.sum())"
            seen = []
            first = client.run(printing, entry="main", args=[ARRAY], on_stdout=seen.append)
            second = client.run(SUM, entry="main", args=[ARRAY])
        assert (first.value, second.value, "".join(seen)) == (int(ARRAY.sum()), int(ARRAY.sum()), "it runs\n")
        assert daemon.log.read_text().count("no_mapping") == 1, "it is tried once"
        assert not daemon.pool()["recycles"]
    nothing_is_left(home)
