"""Calls of `runc`, the program that starts OCI containers, and the translation of its errors."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pool.errors import EngineError, EngineUnavailableError

PROGRAM = "runc"
#: A start on a busy host takes a second. After this time it counts as failed.
CALL_TIMEOUT_S = 60
#: The longest error text of runc that is passed on.
MAX_TEXT = 500
#: The environment of runc. It does not get the daemon's: with NOTIFY_SOCKET it would notify systemd for the daemon.
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

CGROUPS = Path("/sys/fs/cgroup")
#: The controllers of cgroup v1, each with its own hierarchy, that a worker's limits need.
CONTROLLERS = ("memory", "cpu", "pids", "devices", "freezer")


class RuncError(EngineError):
    """An error of runc, with its own message."""


class Runc:
    """runc with the state of its containers in one directory. Methods may be called from several threads."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._program = shutil.which(PROGRAM, path=_ENVIRONMENT["PATH"])

    def version(self) -> str:
        """Raises EngineUnavailableError if it is not installed."""
        words = self._call("--version")
        found = re.search(r"version (\S+)", words)
        return found[1] if found else "?"

    def run(self, container_id: str, bundle: Path, *, output: int, held: int) -> int:
        """Create and start a container; the host pid of its first process.

        `output`: descriptor of its stdout and stderr. `held`: a descriptor that runc keeps open while it works.
        """
        pid_file = bundle / "pid"
        arguments = ("run", "--detach", "--bundle", str(bundle), "--pid-file", str(pid_file), container_id)
        self._call(*arguments, log=bundle / "runc.log", output=output, held=held)
        return int(pid_file.read_text(encoding="ascii"))

    def forget(self, container_id: str, cgroup: str) -> bool:
        """Remove the cgroups and the state of a container whose processes have all ended, without a call of runc.

        False if that cannot be told from the cgroups, or not all of it could be removed: then `delete` does the rest.
        """
        found = 0
        try:
            for hierarchy in (CGROUPS, *os.scandir(CGROUPS)):  # of v2, and those of v1, of which one may have two names
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    os.rmdir(f"{os.fspath(hierarchy)}{cgroup}")  # noqa: PTH106 - five times as quick as Path
                    found += 1
            shutil.rmtree(self._state / container_id)
        except OSError:
            return False
        return found > 0

    def delete(self, container_id: str, *, log: Path | None = None) -> None:
        """Kill it if it runs, and remove its cgroups. It is not an error if there is none."""
        self._call("delete", "--force", container_id, log=log)

    def list(self) -> dict[str, dict[str, Any]]:
        """`status` and `pid` of each container that runc knows, by id."""
        found = json.loads(self._call("list", "--format", "json") or "null") or []
        return {each["id"]: each for each in found}

    def _call(
        self, *arguments: str, log: Path | None = None, output: int | None = None, held: int | None = None
    ) -> str:
        """Run it and return its output. `log`: a file for its errors, for calls whose stderr is the container's."""
        if self._program is None:
            raise EngineUnavailableError("runc is not installed, which the oci engine needs: `apt-get install runc`")
        options = ["--root", str(self._state), "--log-format", "json", *(["--log", str(log)] if log else [])]
        try:
            done = _run([self._program, *options, *arguments], output, held)
        except subprocess.TimeoutExpired:
            raise EngineUnavailableError(
                f"runc did not {arguments[0]} within {CALL_TIMEOUT_S} s; look at the load of this host",
                timeout_s=CALL_TIMEOUT_S,
            ) from None
        except OSError as error:
            raise EngineUnavailableError(f"runc cannot be executed: {error}") from error
        if done.returncode != 0:
            raise RuncError(_reason(log, done.stderr or b"", done.returncode), status=done.returncode)
        return (done.stdout or b"").decode(errors="replace")


def _run(command: Sequence[str], output: int | None, held: int | None) -> subprocess.CompletedProcess[bytes]:
    stream = subprocess.PIPE if output is None else output
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stream,
        stderr=stream,
        pass_fds=() if held is None else (held,),
        env=_ENVIRONMENT,
        timeout=CALL_TIMEOUT_S,
        check=False,
    )


def _reason(log: Path | None, words: bytes, status: int) -> str:
    """The last error of its log, which is a JSON object on each line, or else of its stderr."""
    if log is not None and log.exists():
        words = log.read_bytes()[-65536:]
    lines = [line for line in words.decode(errors="replace").splitlines() if line.strip()]
    for line in reversed(lines):
        try:
            return str(json.loads(line)["msg"])[:MAX_TEXT]
        except (ValueError, KeyError, TypeError):
            return line[:MAX_TEXT]
    return f"exit status {status}"


# ---- cgroups ----


def cgroup_version() -> str:
    """v2 where all controllers are in the unified hierarchy; v1 otherwise, also on hybrid hosts."""
    return "v2" if (CGROUPS / "cgroup.controllers").exists() else "v1"


def counts_swap() -> bool:
    """Whether a limit on memory and swap together can be set."""
    return cgroup_version() == "v2" or (CGROUPS / "memory/memory.memsw.limit_in_bytes").exists()


def require_cgroups(parent: str) -> None:
    """Make the cgroup below which all containers are. Raises EngineUnavailableError."""
    controllers = ("",) if cgroup_version() == "v2" else CONTROLLERS
    for controller in controllers:
        path = CGROUPS / controller / parent.lstrip("/")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EngineUnavailableError(
                f"the cgroup {path} cannot be made: {error.strerror}; the oci engine needs root and a writable "
                f"{CGROUPS} with the controllers memory, cpu and pids",
                path=str(path),
            ) from error


def was_out_of_memory(cgroup: str) -> bool:
    """Whether the kernel has killed a process of this cgroup because of the memory limit."""
    below = cgroup.lstrip("/")
    for path in (CGROUPS / "memory" / below / "memory.oom_control", CGROUPS / below / "memory.events"):
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in lines)
    return False


def is_root() -> bool:
    return os.geteuid() == 0
