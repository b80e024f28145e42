"""Chunks in real containers: the limits of each call, and a chunk whose worker or daemon ends."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from pool import Limits
from tests.support.daemons import DaemonProcess

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("worker_image")]

TEMPLATE = {
    "size": {"min": 1, "max": 1},
    "recycle": {"max_jobs": 100_000},
    "preload": {"modules": ["numpy"]},
    "poison": {"kills": 0},
    "screen": "off",
    "limits": {"wall_s": 60, "cpu_s": 60, "memory": "128m", "result": "1m"},
}
#: What the third call does, its outcome, and the limits.
BAD = {
    "raise": ("raise ValueError(n)", "error", {}),
    "exit": ("import os; os._exit(3)", "crash", {}),
    "sleep": ("import time; time.sleep(600)", "timeout", {"wall_s": 5}),
    "spin, its signal ignored": (
        "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n        while True: pass",
        "timeout",
        {"cpu_s": 1},
    ),
    "hold memory": ("return bytes(140 << 20)", "memory", {}),
    "return much": ("return bytes(2 << 20)", "output", {}),
}
MAIN = """
calls = 0

def main(n):
    global calls
    calls += 1
    print("call", n)
    if n == 2:
        {}
    return n, calls
"""


@pytest.mark.parametrize(("code", "outcome", "limits"), BAD.values(), ids=BAD)
def test_a_call_that_ends_badly_has_that_outcome_alone_and_the_others_go_on_in_a_fresh_child(
    client, code, outcome, limits
):
    lists = [[n] for n in range(5)]
    results = list(client.map(MAIN.format(code), lists, chunksize=5, entry="main", limits=Limits(**limits)))
    assert [str(each.outcome) for each in results] == ["ok", "ok", outcome, "ok", "ok"], results[2]
    assert [each.value for each in results] == [(0, 1), (1, 2), None, (3, 1), (4, 2)]
    assert [each.stdout for each in results] == [f"call {n}\n" for n in range(5)]


def test_memory_that_a_call_keeps_does_not_take_the_next_ones_limit(client):
    code = "kept = []\ndef main(n): kept.append(bytearray(70 << 20)); return len(kept)"
    results = list(client.map(code, [[n] for n in range(4)], chunksize=4, entry="main"))
    assert [each.value for each in results] == [1, 1, 1, 1]


def test_the_calls_of_a_lost_worker_are_lost(client, daemon, sdk):
    code = "import time\ndef main(n): time.sleep(600 * n); return n"
    daemon.until(lambda: not daemon.workers(state="leased"))  # the job of the test before has ended
    results = client.map(code, [[0], [1], [2]], chunksize=3, entry="main")
    daemon.until(lambda: daemon.workers(state="leased"))
    (worker,) = daemon.workers(state="leased")
    sdk.kill(worker["container"])
    assert [str(each.outcome) for each in results] == ["lost"] * 3


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
