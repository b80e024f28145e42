"""A real daemon in a process of its own, for tests: with Docker workers, or with plain processes where none is wanted."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from pool.client import Client
from pool.client.admin import AdminClient
from pool.engines.base import ImageFacts
from pool.errors import DaemonUnreachableError
from pool.images import DEFAULT_TAG, build

#: Generous: a shared machine, and a worker start is a second of CPU.
_READY_S = 300
_STOP_S = 180
_ENGINES = {
    "process": "pool.testing",
    "docker": "pool.cli.daemon",
    "oci": "pool.cli.daemon",
    "stale": "tests.support.stale",
    "stalling": "tests.support.stalling",
    "rogue": "tests.support.rogue",
    "profiled": "tests.support.profiled",
    "failing": "tests.support.failing",
    "failing_fsync": "tests.support.failing_fsync",
    "jumping": "tests.support.jumping",
    "slow_to_remove": "tests.support.slow_to_remove",
    "trimming": "tests.support.trimming",
    "unmapped": "tests.support.unmapped",
}
#: Images that are unpacked for the engine oci: once for all daemons of all tests, and apart from what ./dev builds.
IMAGE_DIR = Path(__file__).parents[2] / ".cache/test-images"
_BUILD_LOCK = IMAGE_DIR.with_name("test-build.lock")
#: Figures of a busy machine, and of tests whose workers cannot start.
_NO_BOUNDS = {"run_p95_s": None, "overhead_p95_s": None, "failed_start_rate": None}


def worker_image() -> ImageFacts:
    """Build it when it is missing or stale: in one of the processes that run the tests, while the others wait."""
    with build_lock():
        return build(DEFAULT_TAG, progress=print)


@contextlib.contextmanager
def build_lock():
    """One of the processes that run the tests builds, so that the others find what it has built."""
    _BUILD_LOCK.parent.mkdir(exist_ok=True)
    with _BUILD_LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class DaemonProcess:
    """`with DaemonProcess({...pools...}) as daemon:` runs until the end of the block, and is stopped whatever happens."""

    def __init__(
        self, pools, *, engine="process", home=None, wait_ready=True, sections=None, patient=False, **daemon_settings
    ):
        """`sections`: of the configuration, besides `daemon` and `pools`. Without them, no figure raises an alert.
        `patient`: with the engine docker or oci, see tests/support/patient.py.
        """
        self.home = Path(home or tempfile.mkdtemp(prefix="pool.", dir="/tmp"))
        self._owns_home = home is None
        self.run_dir, self.state_dir = self.home / "run", self.home / "state"
        self.log = self.home / "log"
        self._module = "tests.support.patient" if patient else _ENGINES[engine]
        self._wait_ready = wait_ready
        named = {"engine": engine} if engine in {"docker", "oci"} else {}
        self._config = {
            **(sections or {"alerts": _NO_BOUNDS}),
            "daemon": {
                "run_dir": str(self.run_dir),
                "state_dir": str(self.state_dir),
                "durability": "none",
                "log_level": "debug",
                **({"image_dir": str(IMAGE_DIR)} if engine == "oci" else {}),
                **daemon_settings,
            },
            # What the layers below do with a program is seen only if the screen lets it pass.
            "pools": {name: {"screen": "off", **named, **pool} for name, pool in pools.items()},
        }
        self.process = None

    @property
    def endpoint(self):
        return f"ipc://{self.run_dir}/submit.sock"

    def start(self):
        path = self.home / "pool.yaml"
        path.write_text(json.dumps(self._config))  # YAML without aliases
        with self.log.open("ab") as log:
            command = [sys.executable, "-W", "error", "-m", self._module, "--config", str(path)]
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env=os.environ | {"NO_COLOR": "1"})
        if self._wait_ready:
            self.until(self._ready)
        return self

    def _ready(self):
        status = self.status()
        assert not any(pool["breaker"]["open"] for pool in status["pools"]), self.words()
        return status["daemon"]["state"] == "running"

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_):
        self.stop()

    def stop(self, number=signal.SIGTERM):
        """End it; its exit code."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        if self._owns_home:
            shutil.rmtree(self.home, ignore_errors=True)
        return self.process.returncode if self.process is not None else None

    def kill(self):
        """As `kill -9` does: its workers and directories stay."""
        self.process.kill()
        self.process.wait()

    def resident_bytes(self):
        return psutil.Process(self.process.pid).memory_info().rss

    def status(self):
        return self.call("status")

    def call(self, name, **arguments):
        with AdminClient(f"ipc://{self.run_dir}/admin.sock") as admin:
            return admin.call(name, **arguments)

    def admin(self, *arguments, stdin=None):
        """`pool-admin` in this process: its exit code and output."""
        from typer.testing import CliRunner

        from pool.cli.admin import app

        typed = ["--run-dir", str(self.run_dir), *map(str, arguments)]
        return CliRunner().invoke(app, typed, input=stdin, catch_exceptions=False)

    def pool(self, name="default"):
        return next(pool for pool in self.status()["pools"] if pool["name"] == name)

    def workers(self, name="default", state=None):
        return [each for each in self.pool(name)["workers"] if state in (None, each["state"])]

    def worker_of(self, job_id, pool="default"):
        """Wait until a worker has this job; what the status says of it. A job of another test may run beside it."""
        found = []

        def leased():
            found[:] = [each for each in self.workers(pool, state="leased") if each["job"] == job_id]
            return found

        self.until(leased)
        return found[0]

    @staticmethod
    def pid_of(worker):
        """Of the runner of a worker, by the status, that is a plain process."""
        return int(worker["container"].removeprefix("process-"))

    def client(self, **options):
        return Client(self.endpoint, **options)

    def until(self, condition, timeout=_READY_S):
        """Wait for a condition; with the daemon's log in the failure."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.words()}")
            try:
                if condition():
                    return
            except DaemonUnreachableError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"it did not come to pass within {timeout} s:\n{self.words()}")

    def words(self):
        return self.log.read_text()[-8000:] if self.log.exists() else ""


def module_daemon(pools, *, kind=DaemonProcess, **options):
    """The fixture `daemon` of a module, one for all its tests; `kind`: its class."""

    @pytest.fixture(scope="module", name="daemon")
    def running():
        with kind(pools, **options) as it:
            yield it

    return running
