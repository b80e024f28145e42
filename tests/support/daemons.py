"""A real daemon in a process of its own, for tests: with Docker workers, or with plain processes where none is wanted."""

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

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
_MODULES = {"process": "pool.testing", "docker": "pool.cli.daemon", "oci": "pool.cli.daemon"}
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
def build_lock() -> Iterator[None]:
    """One of the processes that run the tests builds, so that the others find what it has built."""
    _BUILD_LOCK.parent.mkdir(exist_ok=True)
    with _BUILD_LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class DaemonProcess:
    """`with DaemonProcess({...pools...}) as daemon:` runs until the end of the block, and is stopped whatever happens."""

    def __init__(
        self,
        pools: Mapping[str, Mapping[str, Any]],
        *,
        engine: str = "process",
        home: Path | None = None,
        wait_ready: bool = True,
        sections: Mapping[str, Any] | None = None,
        patient: bool = False,
        **daemon_settings: object,
    ) -> None:
        """`engine`: also a fault of tests/support/faulty.py, or a module that runs a daemon with an engine of its own.

        `sections`: of the configuration, besides `daemon` and `pools`. Without them, no figure raises an alert.
        `patient`: with the engine docker or oci, see tests/support/faulty.py.
        """
        self.home = Path(home or tempfile.mkdtemp(prefix="pool.", dir="/tmp"))
        self._owns_home = home is None
        self.run_dir, self.state_dir = self.home / "run", self.home / "state"
        self.log = self.home / "log"
        module = None if patient else _MODULES.get(engine, engine if "." in engine else None)
        self._program = [module] if module else ["tests.support.faulty", "patient" if patient else engine]
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
        self.process: Any = None  #: a Popen, once it has been started

    @property
    def endpoint(self) -> str:
        return f"ipc://{self.run_dir}/submit.sock"

    def start(self) -> Self:
        path = self.home / "pool.yaml"
        path.write_text(json.dumps(self._config))  # YAML without aliases
        with self.log.open("ab") as log:
            command = [sys.executable, "-W", "error", "-m", *self._program, "--config", str(path)]
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env=os.environ | {"NO_COLOR": "1"})
        if self._wait_ready:
            self.until(self._ready)
        return self

    def _ready(self) -> bool:
        status = self.status()
        assert not any(pool["breaker"]["open"] for pool in status["pools"]), self.words()
        return bool(status["daemon"]["state"] == "running")

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> int | None:
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

    def kill(self) -> None:
        """As `kill -9` does: its workers and directories stay."""
        self.process.kill()
        self.process.wait()

    def resident_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def private_bytes(self) -> int:
        """Its memory without that of files."""
        memory = psutil.Process(self.process.pid).memory_info()
        return int(memory.rss - memory.shared)

    def status(self) -> Any:
        return self.call("status")

    def call(self, name: str, **arguments: Any) -> Any:
        with AdminClient(f"ipc://{self.run_dir}/admin.sock") as admin:
            return admin.call(name, **arguments)

    def admin(self, *arguments: object, stdin: str | None = None) -> Any:
        """`pool-admin` in this process: its exit code and output."""
        from typer.testing import CliRunner

        from pool.cli.admin import app

        typed = ["--run-dir", str(self.run_dir), *map(str, arguments)]
        return CliRunner().invoke(app, typed, input=stdin, catch_exceptions=False)

    def pool(self, name: str = "default") -> Any:
        return next(pool for pool in self.status()["pools"] if pool["name"] == name)

    def workers(self, name: str = "default", state: str | None = None) -> list[Any]:
        return [each for each in self.pool(name)["workers"] if state in (None, each["state"])]

    def worker_of(self, job_id: str, pool: str = "default") -> Any:
        """Wait until a worker has this job; what the status says of it. A job of another test may run beside it."""
        found: list[Any] = []

        def leased() -> object:
            found[:] = [each for each in self.workers(pool, state="leased") if each["job"] == job_id]
            return found

        self.until(leased)
        return found[0]

    @staticmethod
    def pid_of(worker: Any) -> int:
        """Of the runner of a worker, by the status, that is a plain process."""
        return int(worker["container"].removeprefix("process-"))

    def client(self, **options: Any) -> Client:
        return Client(self.endpoint, **options)

    def until(self, condition: Callable[[], object], timeout: float = _READY_S, *, every_s: float = 0.05) -> None:
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
            time.sleep(every_s)
        raise AssertionError(f"it did not come to pass within {timeout} s:\n{self.words()}")

    def words(self) -> str:
        return self.log.read_text()[-8000:] if self.log.exists() else ""


def pool_of(workers: int, most: int | None = None, *, preload: Sequence[str] = (), **template: Any) -> dict[str, Any]:
    """A template of so many workers, or of up to `most`, which import these modules before their first job."""
    return {"size": {"min": workers, "max": most or workers}, "preload": {"modules": [*preload]}, **template}


def module_daemon(
    pools: Mapping[str, Mapping[str, Any]], *, kind: type[DaemonProcess] = DaemonProcess, **options: Any
) -> object:
    """The fixture `daemon` of a module, one for all its tests; `kind`: its class."""

    @pytest.fixture(scope="module", name="daemon")
    def running() -> Iterator[DaemonProcess]:
        with kind(pools, **options) as it:
            yield it

    return running
