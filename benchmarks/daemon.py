"""A real daemon for the benchmarks: started in a directory of its own, stopped at the end whatever happened.

single   max_jobs 1: every job sees a container that no one has used
reuse    max_jobs 100
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pool.client.admin import AdminClient
from pool.errors import DaemonUnreachableError
from pool.model import WorkerState

IMAGE = os.environ.get("POOL_BENCH_IMAGE", "pool-worker:latest")
SIZE = 2
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
LOG_TAIL_BYTES = 3000

CONFIG = """
daemon: {{run_dir: {directory}/run, state_dir: {directory}/state, log_level: warning}}
pools:
  single:
    engine: docker
    image: "{image}"
    size: {{min: {size}, max: {size}, spare: {size}}}
    recycle: {{max_jobs: 1}}
    preload: {{modules: [numpy, pandas]}}
  reuse:
    engine: docker
    image: "{image}"
    size: {{min: {size}, max: {size}}}
    recycle: {{max_jobs: 100}}
    preload: {{modules: [numpy, pandas]}}
"""


class _Worker(msgspec.Struct):
    state: WorkerState
    container: str | None = None


class _Pool(msgspec.Struct):
    name: str
    workers: list[_Worker]


class _Status(msgspec.Struct):
    """The fields of the snapshot that the benchmarks read."""

    pools: list[_Pool]


@dataclass(frozen=True, slots=True)
class Daemon:
    process: subprocess.Popen[bytes]
    directory: Path
    size: int = SIZE  #: workers of each pool

    @property
    def submit(self) -> str:
        return str(self.directory / "run" / "submit.sock")

    def all_idle(self, pool: str) -> bool:
        """Every worker of the pool is idle, and none is being started or stopped."""
        try:
            workers = self._workers(pool)
        except DaemonUnreachableError:
            return False
        return [worker.state for worker in workers] == [WorkerState.IDLE] * self.size

    def containers(self, pool: str) -> list[str]:
        return [worker.container for worker in self._workers(pool) if worker.container]

    def _workers(self, pool: str) -> list[_Worker]:
        with AdminClient(str(self.directory / "run" / "admin.sock")) as admin:
            status = msgspec.convert(admin.call("status"), _Status)
        return [worker for each in status.pools if each.name == pool for worker in each.workers]

    def wait_idle(self, pool: str) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not self.all_idle(pool):
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"the pool {pool} did not become idle; the daemon's log ends:\n{self.log_tail()}")
            time.sleep(0.02)

    def log_tail(self) -> str:
        return (self.directory / "log").read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def started(
    template: str = CONFIG,
    pools: Sequence[str] = ("single", "reuse"),
    size: int = SIZE,
) -> Iterator[Daemon]:
    """A daemon with idle workers in its pools. `template`: the configuration, with the fields that CONFIG has."""
    with tempfile.TemporaryDirectory(prefix="pb-") as name:  # short: socket paths have to fit
        directory = Path(name)
        config = directory / "pool.yaml"
        config.write_text(template.format(directory=directory, image=IMAGE, size=size), encoding="utf-8")
        with (directory / "log").open("wb") as log:
            command = [sys.executable, "-m", "pool.cli.daemon", "--config", str(config)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        daemon = Daemon(process, directory, size)
        try:
            for pool in pools:
                daemon.wait_idle(pool)
            yield daemon
        finally:
            daemon.stop()
