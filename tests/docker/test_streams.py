"""Output while a job runs, from real containers."""

from __future__ import annotations

import os
import textwrap
import time

import pytest

from pool import JobResult, OutputEvent
from pool.model import Limits, Outcome
from tests.support.process import python

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("worker_image")]

TEMPLATE = {
    "size": {"min": 2, "max": 2},
    "recycle": {"max_jobs": 1000},
    "preload": {"modules": []},
    "limits": {"wall_s": 60, "cpu_s": 60, "memory": "256m", "output": "1m"},
}
DAEMON = {"submit_mode": "0666"}
NOBODY = 65534


@pytest.fixture(autouse=True)
def next_job_is_served(client):
    yield
    assert client.run("result = 6 * 7").value == 42


def text_of(events, stream="stdout"):
    return "".join(each.text for each in events if isinstance(each, OutputEvent) and each.stream == stream)


def test_what_is_flushed_arrives_while_the_job_runs(client):
    """Containers and host have one monotonic clock, so a line can say when it was printed."""
    code = "import time\nwhile True:\n    print(time.monotonic(), flush=True)\n    time.sleep(0.02)"
    job_id = client.submit(code)
    events = client.stream(job_id, timeout=30)
    printed = [(time.monotonic(), float(line)) for _ in range(20) for line in next(events).text.split()]
    client.cancel(job_id)
    assert all(0 < heard - said < 20 for heard, said in printed)


def test_both_streams_come_in_order_and_as_they_were_printed(client):
    heard = []
    code = (
        "import sys, time\n"
        "for n in range(12):\n"
        "    print(n, file=(sys.stdout, sys.stderr)[n % 2], flush=True)\n"
        "    time.sleep(0.1)"
    )
    result = client.run(code, on_stdout=heard.append, on_stderr=heard.append)
    assert "".join(heard).split() == [str(n) for n in range(12)]
    assert (result.stdout.split(), result.stderr.split()) == (
        [*map(str, range(0, 12, 2))],
        [*map(str, range(1, 12, 2))],
    )


def test_a_gigabyte_arrives_up_to_the_cap_and_the_daemon_stays_small(client, daemon):
    heard = []
    client.run("result = 1")
    before = daemon.resident_bytes()
    code = "import os\nblock = b'0123456789abcdef' * 4096\nfor _ in range(16 * 1024):\n    os.write(1, block)"
    result = client.run(code, on_stdout=heard.append)
    assert result.outcome is Outcome.OK, result
    assert (result.stdout_bytes, result.truncated) == (1 << 30, ("stdout",))
    assert "".join(heard) == result.stdout == "0123456789abcdef" * 65536
    assert daemon.resident_bytes() - before < 24 << 20


def test_another_process_that_comes_late_reads_from_the_first_byte(client, daemon):
    job_id = client.submit("import time\nfor n in range(10):\n    print(n, flush=True)\n    time.sleep(0.1)")
    assert isinstance(next(client.stream(job_id, timeout=30)), OutputEvent)
    program = textwrap.dedent("""
        import sys
        from pool import Client, OutputEvent
        with Client(sys.argv[1]) as client:
            for event in client.stream(sys.argv[2], timeout=30):
                print(event.text if isinstance(event, OutputEvent) else event.outcome, end="")
    """)
    read = python("-c", program, daemon.endpoint, job_id, check=True)
    assert read.stdout == "".join(f"{n}\n" for n in range(10)) + "ok"
    assert text_of(client.stream(job_id, timeout=30)) == "".join(f"{n}\n" for n in range(10))  # after its end


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_cannot_read_it(client, daemon):
    for directory in (daemon.home, daemon.run_dir):
        directory.chmod(0o755)
    job_id = client.submit("import time\nprint('secret', flush=True)\ntime.sleep(2)")
    assert next(client.stream(job_id, timeout=30)).text == "secret\n"
    probe = textwrap.dedent(f"""
        import os
        os.setgroups([]); os.setresgid({NOBODY}, {NOBODY}, {NOBODY}); os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
        from pool.client import Client
        from pool.errors import UnknownJobError
        with Client({daemon.endpoint!r}) as client:
            try:
                print(list(client.stream({job_id!r}, timeout=60)))
            except UnknownJobError:
                print("unknown", client.run("result = 1").value)
    """)
    # A package that is installed for development is found by who may read the checkout; the imports come before.
    probe = "import pool.client, pool.errors, pool.client.client, pool.wire, pool.model, zmq, msgspec\n" + probe
    seen = python("-c", probe)
    assert seen.stdout == "unknown 1\n", seen.stderr
    client.cancel(job_id)


def test_the_steps_of_a_traced_job_are_of_one_clock_inside_and_outside_of_its_container(client, daemon):
    result = client.run("result = 1", trace=True)
    times = [each.us for each in result.trace]
    assert times == sorted(times)
    known = [(each["step"], each["us"]) for each in daemon.call("history", id=result.job_id)["trace"]]
    assert known == [(each.step, each.us) for each in result.trace[:-1]]
    inside = dict(known)
    assert inside["daemon: sent to the worker"] < inside["child: code begins"] < inside["daemon: answer received"]


def test_advise_has_the_jobs_of_the_pool_and_what_a_container_costs(client, daemon):
    before = len(daemon.call("arrivals")["pools"][0]["jobs"])
    assert client.run("result = 1").value == 1
    (found,) = daemon.call("arrivals")["pools"]
    assert len(found["jobs"]) == before + 1
    assert found["start_s"] > 0
    assert found["worker_bytes"] > 1 << 20


def test_the_output_of_a_job_that_is_killed_arrives_up_to_then(client):
    heard = []
    code = "import time\nprint('before', flush=True)\ntime.sleep(60)"
    result = client.run(code, limits=Limits(wall_s=1), on_stdout=heard.append)
    assert (result.outcome, result.stdout, heard) == (Outcome.TIMEOUT, "before\n", ["before\n"])
    job_id = client.submit(code)
    events = client.stream(job_id, timeout=30)
    assert next(events).text == "before\n"
    client.cancel(job_id)
    (result,) = events
    assert (result.outcome, result.stdout) == (Outcome.CANCELLED, "before\n")


def test_output_that_arrived_is_kept_when_the_container_is_killed(client, daemon, sdk):
    job_id = client.submit("import time\nprint('before', flush=True)\ntime.sleep(60)")
    events = client.stream(job_id, timeout=60)
    assert next(events).text == "before\n"
    (worker,) = (each for each in daemon.workers() if each["job"] == job_id)
    sdk.kill(worker["container"])
    (result,) = events
    assert isinstance(result, JobResult)
    assert (result.outcome, result.stdout) == (Outcome.LOST, "before\n")
    daemon.until(lambda: len(daemon.workers(state="idle")) == 2)
