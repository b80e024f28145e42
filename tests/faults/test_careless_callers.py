"""A program that a careless caller has started: without standard streams, or with signals ignored and blocked."""

import os
import subprocess
import sys

from tests.support.daemons import DaemonProcess, pool_of

POOLS = {"default": pool_of(1)}


def test_a_daemon_without_standard_streams_serves_and_writes_to_no_file_of_its_own():
    with DaemonProcess(POOLS, engine="closed", durability="crash") as daemon:
        with daemon.client(timeout=60) as client:
            assert client.run("result = 7").value == 7
        streams = [os.readlink(f"/proc/{daemon.process.pid}/fd/{number}") for number in range(3)]
        assert streams == [os.devnull] * 3
        assert daemon.stop() == 0


def test_a_daemon_whose_caller_ignores_and_blocks_signals_serves_and_stops_by_sigterm():
    with DaemonProcess(POOLS, engine="deaf", durability="crash") as daemon:
        with daemon.client(timeout=60) as client:
            assert client.submit("result = 7")
            daemon.until(lambda: daemon.pool()["jobs"]["ok"] == 1, timeout=60)
        assert daemon.stop() == 0


def test_a_command_without_standard_streams_ends_with_its_exit_status():
    closed = "import os, sys; os.closerange(0, 3); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    for command, status in (
        (["pool.cli.daemon", "--check"], 0),
        (["pool.cli.admin", "--run-dir", "/none", "status"], 3),
    ):
        done = subprocess.run([sys.executable, "-c", closed, "-m", *command], check=False, timeout=120)
        assert done.returncode == status
