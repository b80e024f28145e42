"""Ctrl-C in a loop: what is under way is cancelled at the daemon, and the program ends with the traceback of its own wait.

Each program is a process of its own with a live daemon, whose workers are plain processes.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support.daemons import DaemonProcess

POOL = {
    "size": {"min": 2, "max": 2},
    "preload": {"modules": []},
    "limits": {"wall_s": 900, "cpu_s": 900},
    "max_limits": {"wall_s": 900, "cpu_s": 900},
}
#: How many jobs each program has under way, beyond what two workers run.
JOBS = 5
BEGIN = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from pool import AsyncClient, Client, PoolExecutor, SandboxExecutor
endpoint = sys.argv[1]
CODE = "def main(n):\\n    import time\\n    time.sleep(900)"
inputs = [[n] for n in range(5)]

def sleep(n):
    import time
    time.sleep(900)
"""
PROGRAMS = {
    "map": """
with Client(endpoint) as client:
    list(client.map(CODE, inputs, entry="main"))
""",
    "the futures of an executor": """
with PoolExecutor(endpoint) as executor:
    for future in [executor.submit(sleep, n) for n in range(5)]:
        future.result()
""",
    "a sandbox in threads": """
with ThreadPoolExecutor(5) as threads, SandboxExecutor(endpoint) as sandbox:
    for future in [threads.submit(sandbox.execute, CODE, each, timeout=900) for each in inputs]:
        future.result()
""",
    "asyncio": """
async def main():
    async with AsyncClient(endpoint) as client:
        await asyncio.gather(*[client.run(CODE, entry="main", args=each) for each in inputs])

asyncio.run(main())
""",
}


@pytest.fixture(scope="module")
def daemon():
    with DaemonProcess({"default": POOL}) as running:
        yield running


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_ctrl_c_cancels_what_is_under_way_and_leaves_a_clean_traceback(daemon, program):
    before = cancelled(daemon)
    command = [sys.executable, "-W", "error", "-c", BEGIN + program, daemon.endpoint]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            daemon.until(lambda: under_way(daemon) == JOBS)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT, told
    assert told.rstrip().endswith("KeyboardInterrupt"), told
    assert "Exception ignored" not in told
    assert "never retrieved" not in told
    daemon.until(lambda: cancelled(daemon) == before + JOBS and under_way(daemon) == 0)


def under_way(daemon):
    pool = daemon.pool()
    return pool["backlog"] + sum(each["state"] == "leased" for each in pool["workers"])


def cancelled(daemon):
    return daemon.pool()["jobs"]["cancelled"]
