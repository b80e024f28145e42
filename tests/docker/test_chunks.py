"""Chunks in real containers: the limits and the isolation of each call or case, and lost workers and daemons."""

import shutil
import tempfile
import threading
from pathlib import Path

import pytest

from pool import Limits
from pool.client import cases
from tests.support.daemons import DaemonProcess

TEMPLATE = {
    "size": {"min": 1, "max": 1},
    "recycle": {"max_jobs": 100_000},
    "preload": {"modules": ["numpy"]},
    "poison": {"kills": 0},
    "screen": "off",
    "limits": {"wall_s": 60, "cpu_s": 60, "memory": "128m", "result": "1m"},
}
#: A worker that is ended because it got no core for a while would take the other cases of its chunk along.
DAEMON = {"patient": True}
#: What two of the cases do, their outcome, and the limits. tests/unit/test_series.py has the ends that need no container.
BAD = {
    "spin, its signal ignored": (
        "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n        while True: pass",
        "timeout",
        {"cpu_s": 1},
    ),
    "hold memory": ("return bytes(140 << 20)", "memory", {}),
    "return much": ("return bytes(2 << 20)", "output", {}),
}
#: So many cases are in chunks of two.
COUNT = 2 * cases.LEAST_CHUNKS
MAIN = """
def main(n):
    print("case", n)
    if n in {{2, 5}}:
        n = 2
        {}
    return n
"""
#: What a case leaves where a program can leave something, and what the next one finds of it.
LEAVES = """
import os, time

def trace(*directories):
    return [name for each in directories for name in os.listdir(each) if name.startswith("left")]

def main(n):
    found = trace(".", "/tmp", "/dev/shm", os.environ["TMPDIR"])
    found += [number for number in range(2, 60) if number != os.getpid() and exists(number)]
    for directory in (".", "/tmp", "/dev/shm"):
        with open(f"{directory}/left{n}", "w") as file:
            file.write("x" * 100_000)
    os.set_blocking(1, False)
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
            os._exit(0)
    return found, os.get_blocking(1)

def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
"""


@pytest.mark.parametrize(("code", "outcome", "limits"), BAD.values(), ids=BAD)
def test_a_case_that_ends_badly_has_that_outcome_alone(client, code, outcome, limits):
    given = [{"args": [n], "expected": n, "stdout": f"case {n}"} for n in range(COUNT)]
    report = client.run_tests(MAIN.format(code), given, entry="main", limits=Limits(**limits))
    bad = {2, 5}
    assert [str(row.job.outcome) for row in report.cases] == [outcome if n in bad else "ok" for n in range(COUNT)]
    assert [row.passed for row in report.cases] == [n not in bad for n in range(COUNT)], report.first_failure
    assert len({row.job.job_id for row in report.cases}) < COUNT


def test_processes_files_and_stream_settings_of_a_case_are_gone_before_the_next_one_of_its_chunk(client):
    given = [{"args": [n], "expected": ([], False)} for n in range(COUNT)]
    report = client.run_tests(LEAVES, given, entry="main")
    assert report.ok, report.first_failure


def test_memory_is_counted_anew_for_each_case(client):
    code = "kept = []\ndef main(n): kept.append(bytearray(60 << 20)); return len(kept)"
    report = client.run_tests(code, [{"args": [n], "expected": 1} for n in range(COUNT)], entry="main")
    assert report.ok, report.first_failure


def test_the_cases_of_a_lost_worker_are_lost_and_the_others_go_on(client, daemon, sdk):
    code = "import time\ndef main(n): time.sleep(600 * (n < 2)); return n"
    given = [{"args": [n], "expected": n} for n in range(COUNT)]
    reports = []
    run = threading.Thread(
        target=lambda: reports.append(client.run_tests(code, given, entry="main", limits=Limits(wall_s=60)))
    )
    run.start()
    daemon.until(lambda: daemon.workers(state="leased") and daemon.pool()["backlog"] == cases.LEAST_CHUNKS - 1)
    (worker,) = daemon.workers(state="leased")
    sdk.kill(worker["container"])
    run.join()
    (report,) = reports
    assert [str(row.job.outcome) for row in report.cases] == ["lost"] * 2 + ["ok"] * (COUNT - 2)


def test_cases_go_on_when_their_daemon_is_killed():
    home = Path(tempfile.mkdtemp(prefix="pool.", dir="/tmp"))
    code = "import time\ndef main(n): time.sleep(0.2 if n else 5); print(n); return n"
    given = [{"args": [n], "expected": n, "stdout": f"{n}"} for n in range(COUNT)]
    try:
        first = DaemonProcess({"default": TEMPLATE}, engine="docker", home=home, durability="crash").start()
        with first.client(timeout=120) as client:
            reports = []
            asked = {"entry": "main", "on_disconnect": "keep"}
            run = threading.Thread(target=lambda: reports.append(client.run_tests(code, given, **asked)))
            run.start()
            # The daemon has accepted all of them: one that it had not would be unknown to the next daemon.
            first.until(lambda: first.pool()["backlog"] == cases.LEAST_CHUNKS - 1)
            first.kill()
            with DaemonProcess({"default": TEMPLATE}, engine="docker", home=home, durability="crash"):
                run.join()
        assert reports[0].ok, reports[0].first_failure
    finally:
        shutil.rmtree(home)


def test_memory_that_a_call_keeps_does_not_take_the_next_ones_limit(client):
    code = "kept = []\ndef main(n): kept.append(bytearray(70 << 20)); return len(kept)"
    results = list(client.map(code, [[n] for n in range(4)], chunksize=4, entry="main"))
    assert [each.value for each in results] == [1, 1, 1, 1]


def test_a_chunk_goes_on_when_its_daemon_is_killed_and_each_call_has_its_result():
    home = Path(tempfile.mkdtemp(prefix="pool.", dir="/tmp"))
    code = "import time\ndef main(n): time.sleep(1); print(n); return n"
    try:
        first = DaemonProcess({"default": TEMPLATE}, engine="docker", home=home, durability="crash").start()
        with first.client(timeout=120) as client:
            results = client.map(code, [[0], [1], [2]], chunksize=3, entry="main", on_disconnect="keep")
            first.until(lambda: first.workers(state="leased"))
            first.kill()
            with DaemonProcess({"default": TEMPLATE}, engine="docker", home=home, durability="crash"):
                ended = list(results)
        assert [(str(each.outcome), each.value, each.stdout) for each in ended] == [
            ("ok", n, f"{n}\n") for n in range(3)
        ]
    finally:
        shutil.rmtree(home)
