"""Runs the corpus under strace and collects the names of the system calls.

a program of the corpus       strace -f python -I -c PROGRAM
a worker as a process         pool.testing, whose interpreter is a script that starts strace; jobs are run in it
a worker in a container       pool-daemon; strace is attached to the runner, jobs are run in it
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from corpus import JOBS, LIBRARIES, PROGRAMS

_CALL = re.compile(r"^(?:\d+\s+)?([a-z_0-9]+)\(", re.MULTILINE)
_STRACE = ("strace", "-f", "-qq", "-s", "0", "-e", "signal=none")
_READY_S = 120
#: A template whose workers are short-lived, so that starts and ends are in the trace as well.
_TEMPLATE = {
    "size": {"min": 1, "max": 1},
    "recycle": {"max_jobs": 100},
    "preload": {"modules": ["numpy", "pandas"]},
    "screen": {"mode": "off"},
    "limits": {"wall_s": 60, "memory": "1g"},
}

Say = Callable[[str], None]


def trace(say: Say, *, docker: bool) -> dict[str, dict[str, object]]:
    """The content of traced.json."""
    if shutil.which("strace") is None:
        raise SystemExit("derive: strace is needed; apt-get install strace")
    calls: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="pool-derive-") as directory:
        for name, program in PROGRAMS.items():
            calls[name] = _program(name, program, Path(directory), say)
        for name, worker in {"worker as a process": _as_process, "worker in a container": _in_container}.items():
            if docker or worker is _as_process:
                with tempfile.TemporaryDirectory(prefix="pool.", dir="/tmp") as home:  # short, for sockets
                    calls[name] = worker(Path(home), say)
                say(f"{name}: {len(calls[name])} names")
    return {"made": _made(), "calls": {name: names for name, names in calls.items() if names}}


def _made() -> dict[str, object]:
    found = {name: _version(name) for name in LIBRARIES}
    strace = subprocess.run(["strace", "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "machine": platform.machine(),
        "kernel": platform.release().partition("-")[0],
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "strace": strace.split()[3],
        **{name: version for name, version in found.items() if version},
    }


def _version(name: str) -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return ""


def _names(directory: Path) -> list[str]:
    return sorted(
        {name for path in directory.glob("*.strace") for name in _CALL.findall(path.read_text("utf-8", "replace"))}
    )


def _program(name: str, program: str, directory: Path, say: Say) -> list[str]:
    home = directory / re.sub(r"\W", "-", name)
    home.mkdir()
    command = [*_STRACE, "-o", str(home / "all.strace"), sys.executable, "-c", program]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        found = _names(home)
        say(f"{name}: {len(found)} names")
        return found
    last = done.stderr.strip().splitlines()[-1:]
    say(f"{name}: left out ({' '.join(last)})")
    return []


def _as_process(home: Path, say: Say) -> list[str]:
    script = home / "python"
    script.write_text(
        f'#!/bin/sh\nexec {" ".join(_STRACE)} -o {home}/$$.strace {sys.executable} "$@"\n', encoding="utf-8"
    )
    script.chmod(0o755)
    start = f"import sys; sys.executable = {str(script)!r}; from pool.testing import main; main()"
    with _daemon(home, [sys.executable, "-c", start]):
        _run_jobs(home, say)
    time.sleep(6)  # a traced runner outlives its tracer by its patience with a daemon that is gone
    return _names(home)


def _in_container(home: Path, say: Say) -> list[str]:
    from pool.images import DEFAULT_TAG, build

    build(DEFAULT_TAG, progress=say)
    tracers: list[subprocess.Popen[bytes]] = []
    with _daemon(home, [sys.executable, "-m", "pool.cli.daemon"]):
        try:
            tracers += [_attach(pid, home) for pid in _runners(home)]
            _run_jobs(home, say)
        finally:
            for tracer in tracers:
                tracer.terminate()
                tracer.wait()
    return _names(home)


def _attach(pid: int, home: Path) -> subprocess.Popen[bytes]:
    """To a process, all its threads and what has come of it so far."""
    family = [pid, *_descendants(pid)]
    attached = [word for each in family for word in ("-p", str(each))]
    return subprocess.Popen([*_STRACE, "-o", str(home / f"{pid}.strace"), *attached])


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            yield int(child)
            yield from _descendants(int(child))


def _runners(home: Path) -> list[int]:
    import docker

    from pool.client.admin import AdminClient

    with AdminClient(f"ipc://{home}/run/admin.sock") as admin:
        status = admin.call("status")
    engine = docker.from_env()
    try:
        ids = [worker["container"] for pool in status["pools"] for worker in pool["workers"]]
        return [engine.api.inspect_container(name)["State"]["Pid"] for name in ids]
    finally:
        engine.close()


def _run_jobs(home: Path, say: Say) -> None:
    from pool.client import Client

    with Client(f"ipc://{home}/run/submit.sock", timeout=60) as client:
        for name, code in JOBS.items():
            result = client.run(code)
            say(f"  job {name}: {result.outcome}")


@contextlib.contextmanager
def _daemon(home: Path, command: Sequence[str]) -> Iterator[None]:
    """A daemon of its own, until the end of the block; ready when it begins."""
    settings = {
        "daemon": {"run_dir": str(home / "run"), "state_dir": str(home / "state"), "durability": "none"},
        "pools": {"default": _TEMPLATE},
    }
    (home / "pool.yaml").write_text(json.dumps(settings), encoding="utf-8")
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--config", str(home / "pool.yaml")], stdout=log, stderr=log, env=os.environ
        )
    try:
        _await_worker(home, process)
        yield
    finally:
        process.terminate()
        process.wait()


def _await_worker(home: Path, process: subprocess.Popen[bytes]) -> None:
    from pool.client.admin import AdminClient
    from pool.errors import PoolError

    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(PoolError), AdminClient(f"ipc://{home}/run/admin.sock") as admin:
            if any(worker["state"] == "idle" for pool in admin.call("status")["pools"] for worker in pool["workers"]):
                return
        time.sleep(0.2)
    raise SystemExit(f"derive: the daemon does not come up:\n{(home / 'log').read_text(encoding='utf-8')[-2000:]}")
