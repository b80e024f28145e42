"""A daemon that is killed leaves its workers, and the next one adopts them."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor as Threads

import pytest

from pool.model import Outcome
from pool.testing import start_of
from tests.support.daemons import DaemonProcess, pool_of

POOL = pool_of(1)


def idle(daemon):
    return {each["id"]: each["container"] for each in daemon.workers(state="idle")}


def pids(workers):
    return [int(container.removeprefix("process-")) for container in workers.values()]


def all_gone(workers):
    return not any(map(start_of, pids(workers)))


def left_by_a_killed_daemon(home, before=lambda _: None, idle_after=1, pools=("default",)):
    """The workers of a daemon that was killed after `before` was done with it."""
    first = DaemonProcess(dict.fromkeys(pools, POOL), home=home).start()
    first.until(lambda: all(len(first.workers(pool, state="idle")) == 1 for pool in pools))
    found = {each["id"]: each["container"] for pool in pools for each in first.workers(pool)}
    before(first)
    first.until(lambda: len(idle(first)) == idle_after)
    first.kill()
    return found


def test_a_worker_is_adopted_by_one_daemon_after_the_other_keeps_its_name_and_count_and_ends_with_the_last(home):
    def runs(daemon):
        with daemon.client(timeout=60) as client:
            client.run("result = 1")

    left_by_a_killed_daemon(home, before=runs)
    left = left_by_a_killed_daemon(home, before=runs)
    with DaemonProcess({"default": POOL}, home=home) as third, third.client(timeout=60) as client:
        third.until(lambda: idle(third) == left)
        assert [(each["id"], each["jobs"]) for each in third.workers()] == [("default-1", 2)]
        result = client.run("result = 6 * 7")
        assert (result.value, result.container in left.values()) == (42, True)
    assert all_gone(left)
    assert list((home / "run" / "w").glob("*")) == []


def test_workers_of_another_template_are_replaced_and_those_of_a_pool_that_is_gone_are_removed(home):
    left = left_by_a_killed_daemon(home, pools=("default", "gone"))
    with DaemonProcess({"default": POOL | {"limits": {"wall_s": 7}}}, home=home) as second:
        second.until(lambda: len(idle(second)) == 1 and not set(idle(second)) & set(left))
        second.until(lambda: all_gone(left))
        assert second.pool()["recycles"]["outdated"] == 1


def test_a_worker_that_does_not_connect_is_removed_and_replaced(home):
    left = left_by_a_killed_daemon(home)
    (frozen,) = pids(left)
    os.kill(frozen, signal.SIGSTOP)
    with DaemonProcess({"default": POOL}, home=home) as second:
        second.until(lambda: len(idle(second)) == 1)
        assert not start_of(frozen)
        assert second.pool()["recycles"]["not_adopted"] == 1, second.words()


def test_a_worker_whose_job_is_not_known_is_removed(home):
    """Without a journal."""

    def starts(daemon):
        with daemon.client() as client:
            client.submit("import time; time.sleep(60)")
            daemon.until(lambda: daemon.workers(state="leased"))

    left = left_by_a_killed_daemon(home, before=starts, idle_after=0)
    with DaemonProcess({"default": POOL}, home=home) as second:
        second.until(lambda: len(idle(second)) == 1)
        assert all_gone(left)
        assert second.pool()["recycles"]["unknown_job"] == 1, second.words()


# ---- with a journal: running jobs ----

#: Notes each of its runs, and ends when it is told to.
WAITS = """
import os, time
def main(directory):
    with open(directory + "/runs", "a") as runs: runs.write("run ")
    print("it runs", flush=True)
    while not os.path.exists(directory + "/go"): time.sleep(0.01)
    return "it went on"
"""


def journaled(home, pool=POOL):
    return DaemonProcess({"default": pool}, home=home, durability="crash")


#: Notes its run and returns at once.
NOTES = """
def main(directory, name, size):
    with open(directory + "/runs", "a") as runs: runs.write(name + " ")
    return name + "x" * size
"""


def killed_at(home, monkeypatch, point, *jobs, size=0, passes=0):
    """The worker of a daemon that has had these jobs and was killed at this point."""
    monkeypatch.setenv("POOL_FAILPOINT", f"{point}:{passes}")
    settings = {"home": home, "durability": "crash", "engine": "failing"}
    with (
        DaemonProcess({"default": POOL}, **settings) as first,
        first.client(timeout=60) as client,
        Threads() as threads,
    ):
        for name in jobs:
            first.until(lambda: len(idle(first)) == 1)
            worker, arguments = idle(first), [str(home), name, size]
            end = threads.submit(client.run, NOTES, entry="main", args=arguments, job_id=name)
            if name != jobs[-1]:
                end.result()
        assert first.process.wait(60) == -signal.SIGKILL, first.words()
        client.close()
    return worker


#: A large answer is acknowledged at once.
ANSWERED = [(point, size) for point in ("write:End", "written:End", "send:Result") for size in (0, 100_000)]
ANSWERED += [("send:Collected", 100_000), ("sent:Collected", 100_000)]


@pytest.mark.parametrize(("point", "size"), ANSWERED)
def test_a_worker_that_has_answered_is_adopted_and_its_job_ends_once(home, monkeypatch, point, size):
    left = killed_at(home, monkeypatch, point, "a", size=size)
    with journaled(home) as second, second.client(timeout=60) as client:
        assert client.result("a").value == "a" + "x" * size
        second.until(lambda: idle(second) == left)
        assert client.run("result = 1").container in left.values()
        assert not second.pool()["recycles"], second.words()
    assert (home / "runs").read_text() == "a "


@pytest.mark.parametrize("point", ["write:Accept", "written:Accept", "send:Run", "sent:Run"])
def test_a_job_that_follows_an_answered_one_runs_once_in_the_same_worker(home, monkeypatch, point):
    left = killed_at(home, monkeypatch, point, "a", "b", passes=1)
    with journaled(home) as second, second.client(timeout=60) as client:
        assert client.result("a").value == "a"
        if point != "write:Accept":
            result = client.result("b")
            assert (result.value, result.container in left.values(), result.attempt) == ("b", True, 1), result
        second.until(lambda: idle(second) == left)
    assert (home / "runs").read_text().split() == (["a"] if point == "write:Accept" else ["a", "b"])


@pytest.fixture
def left_running(home):
    """Job `j` runs in the worker of a daemon that was killed. The worker."""
    with journaled(home) as first, first.client() as client:
        client.submit(WAITS, entry="main", args=[str(home)], job_id="j")
        first.until((home / "runs").exists)
        workers = {each["id"]: each["container"] for each in first.workers()}
        first.kill()
        yield workers


def result_of(daemon):
    with daemon.client(timeout=60) as client:
        return client.result("j")


def test_a_job_that_ends_while_there_is_no_daemon_is_answered_by_the_next_one(home, left_running):
    (home / "go").touch()
    with journaled(home) as second:
        assert result_of(second).value == "it went on"
    assert (home / "runs").read_text() == "run "


def test_a_running_job_goes_on_through_two_restarts_and_ends_once_and_its_output_is_read_from_the_beginning(
    home, left_running
):
    with journaled(home) as second:
        second.until(lambda: second.workers(state="leased"))
        assert [(each["id"], each["container"]) for each in second.workers()] == [*left_running.items()]
        second.kill()
    with journaled(home) as third, third.client(timeout=60) as client:
        third.until(lambda: third.workers(state="leased"))
        events = client.stream("j", 60)
        assert next(events).text == "it runs\n"
        (home / "go").touch()
        *_, result = events
        assert (result.value, result.stdout, result.attempt) == ("it went on", "it runs\n", 1)
        third.until(lambda: idle(third) == left_running)
        assert client.run("result = 1").container == result.container == left_running["default-1"]
    assert (home / "runs").read_text() == "run "


def test_a_running_job_can_be_cancelled_after_a_restart(home, left_running):
    with journaled(home) as second, second.client(timeout=60) as client:
        second.until(lambda: second.workers(state="leased"))
        client.cancel("j")
        assert client.result("j").outcome is Outcome.CANCELLED


def test_the_job_of_an_outdated_worker_ends_before_the_worker_does(home, left_running):
    with journaled(home, POOL | {"limits": {"wall_s": 50}}) as second:
        second.until(lambda: second.workers(state="draining"))
        (home / "go").touch()
        assert result_of(second).value == "it went on"
        second.until(lambda: all_gone(left_running))


def test_the_job_of_a_worker_that_died_meanwhile_is_lost_and_not_run_again(home, left_running):
    for pid in pids(left_running):
        os.kill(pid, signal.SIGKILL)
    with journaled(home) as second:
        result = result_of(second)
        assert result.outcome is Outcome.LOST
        assert "whether it had an effect is unknown" in result.reason
    assert (home / "runs").read_text() == "run "
