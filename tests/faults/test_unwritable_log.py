"""The daemon serves on while its log cannot be written: on a full disk, without a reader, or with one that has stopped."""

import fcntl
import os
from pathlib import Path

import pytest

from tests.support.daemons import DaemonProcess, pool_of

POOLS = {"default": pool_of(1)}


class Logging(DaemonProcess):
    """Its log is no file that could be read after a failure."""

    def words(self):
        return "the log is what the test reads"


@pytest.fixture
def pipe(tmp_path):
    """The path of a pipe, and the descriptor that reads from it."""
    path = tmp_path / "log"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path, reading
    os.close(reading)


def logging_to(path):
    daemon = Logging(POOLS)
    daemon.log = Path(path)
    return daemon


def serves(daemon):
    with daemon.client(timeout=60) as client:
        for _ in range(3):
            assert client.run("def main(x): return x * 2", entry="main", args=[21]).value == 42


def test_a_log_on_a_full_disk():
    with logging_to("/dev/full") as daemon:
        serves(daemon)


def test_a_log_whose_reader_has_ended(pipe):
    path, reading = pipe
    with logging_to(path) as daemon:
        serves(daemon)
        gone = os.open(os.devnull, os.O_RDONLY)
        os.dup2(gone, reading)
        os.close(gone)
        serves(daemon)


def test_a_log_whose_reader_has_stopped_is_written_again_once_it_reads(pipe):
    path, reading = pipe
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
    with logging_to(path) as daemon:
        for _ in range(10):
            serves(daemon)
        assert "lost_lines" not in os.read(reading, 1 << 16).decode()
        serves(daemon)
        assert "lost_lines" in os.read(reading, 1 << 16).decode()
