"""One local worker for its caller: start it, run jobs one after the other, end it.

The caller acts as the daemon on link.sock. When the connection ends, also because the caller was killed, the runner
ends with all its processes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import zmq

from pool import assets, wire
from pool.engines.lockdown import ENVIRONMENT, ULIMITS
from pool.errors import EngineError, StartError
from pool.local.layout import DEVICES, layout
from pool.local.refusals import of_missing, refusal
from pool.printable import visible_block
from pool.screen import Policy

#: Called with a piece of a job's output: "stdout" or "stderr", the offset in bytes, and the bytes.
OnPiece = Callable[[wire.StreamName, int, bytes], object]

_SHELL = "import sys; sys.path += sys.argv[1:3]; from pool.local.shell import main; sys.exit(main(sys.argv[3:]))"
#: The runner's tree is first, as in the image, and the caller's libraries come before others of this Python.
_RUNNER = (
    "import sys; extra = [each for each in sys.argv.pop(1).split(':') if each]; "
    "found = [each for each in sys.path if each.endswith('-packages') and each not in extra]; "
    "sys.path[:] = ['/opt/pool', *(each for each in sys.path if not each.endswith('-packages')), *extra, *found]; "
    "from runner.main import main; main(sys.argv[1:])"
)
_SCRATCH = ("/tmp", "/dev/shm")  # noqa: S108 - inside, where each is a tmpfs of its own
#: User ids for workers that root starts: above those of the daemons' containers, below 2**31.
_FIRST_UID, _UIDS = 2_140_000_000, 7_000_000
#: Memory for libraries, the runner and the next child, besides a job's memory and scratch space.
_OWN_BYTES = 512 << 20
#: The runner's own processes, as in a container.
_OWN_PROCESSES = 12
#: Imports take long in a Python that has to compile its libraries first.
_START_S, _END_S = 120.0, 20.0
#: How long after a job's deadline its answer may come. The runner ends the job; this is for a runner that fails to.
_PATIENCE_S = 60.0
_HEARTBEAT_S, _ORPHAN_S = 60.0, 20.0
_LOG_BYTES = 4000
_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """The worker's own limits, and what all its jobs share."""

    memory: int  #: bytes, of one job
    processes: int
    tmp: int  #: bytes
    result: int  #: bytes, of output and value together
    modules: tuple[str, ...] = ()  #: imported before the first job
    cpus: float = 1.0
    tmp_inodes: int = 4096
    nofile: int = 256


class LocalWorker:
    """A runner in a separate process. Use it from one thread at a time, and not after a fork."""

    def __init__(self, limits: WorkerLimits) -> None:
        """Start it. Raises NoLockdownError if the host refuses a part, and StartError for other failures."""
        self.limits: Final = limits
        self.no_cgroup = ""  #: why the worker as a whole has no hard limits; "" if it has them
        self.usable = True  #: False: it must not get another job
        self.jobs = 0
        self._home = Path(tempfile.mkdtemp(prefix="pool-local-"))
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.PAIR)
        self._process: subprocess.Popen[bytes] | None = None
        self._poller = zmq.Poller()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The pid of shell.py's process, which runs as long as the worker."""
        assert self._process is not None, "it has been closed"
        return self._process.pid

    # ---- its life ----

    def _start(self) -> None:
        link, root = self._home / "link", self._home / "root"
        link.mkdir(mode=0o711)
        root.mkdir(mode=0o700)
        self._socket.setsockopt(zmq.MAXMSGSIZE, self.limits.result + 4 * wire.MAX_CODE_BYTES)
        self._socket.bind(f"ipc://{link}/link.sock")
        (link / "link.sock").chmod(0o666)  # the directory above belongs to this user alone
        self._process = self._spawn(link, root)
        self._poller.register(self._socket, zmq.POLLIN)
        self._ended = os.pidfd_open(self._process.pid)
        self._poller.register(self._ended, zmq.POLLIN)
        self.no_cgroup = self._line().get("cgroup", "")
        deadline = time.monotonic() + _START_S
        while not isinstance(message := self._receive(deadline)[0], wire.Ready):
            if isinstance(message, wire.Broken):
                raise StartError(f"the local worker could not be started: {message.reason}")
        if message.missing or message.isolation != "namespaces":
            raise of_missing(message.missing or (f"namespaces: {message.isolation}",))

    def _spawn(self, link: Path, root: Path) -> subprocess.Popen[bytes]:
        python = sys.executable
        command = [python, "-I", "-S", "-c", _SHELL, str(assets.package().parent), str(assets.worker_image())]
        with (self._home / "log").open("wb") as log:
            return subprocess.Popen(
                [*command, json.dumps(self._plan(link, root))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal is for the caller
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            )

    def _plan(self, link: Path, root: Path) -> dict[str, Any]:
        """Everything that the shell needs, as plain values."""
        limits = self.limits
        uid = os.geteuid() or _FIRST_UID + (os.getpid() * 8 + next(_numbers) % 8) % _UIDS
        found = layout(uid=uid, link=link)
        command = [found.program, "-s", "-P", "-c", _RUNNER, ":".join(found.imports), *self._arguments()]
        return {
            "home": str(self._home),
            "root": str(root),
            "uid": uid,
            "binds": found.binds,
            "links": found.links,
            "files": found.files,
            "devices": [each for each in DEVICES if os.path.exists(each)],  # noqa: PTH110
            "scratch": _SCRATCH,
            "tmp_bytes": limits.tmp,
            "tmp_inodes": limits.tmp_inodes,
            "limits": {**ULIMITS, "nofile": limits.nofile},
            "seccomp": assets.seccomp_profile(),
            "program": found.program,
            "command": command,
            "environment": ENVIRONMENT,
            "cgroup": self._cgroup(),
        }

    def _cgroup(self) -> dict[str, float]:
        """The hard limits on the whole worker."""
        limits = self.limits
        memory_bytes, processes = limits.memory + limits.tmp + _OWN_BYTES, limits.processes + _OWN_PROCESSES
        return {"memory_bytes": memory_bytes, "cpus": limits.cpus, "processes": processes}

    def _arguments(self) -> list[str]:
        """The runner's arguments, as in a container. Jobs get no right beyond computing."""
        limits = self.limits
        given = {
            "--link": "/run/pool/link.sock",
            "--heartbeat-s": _HEARTBEAT_S,
            "--orphan-s": _ORPHAN_S,
            "--isolation": "auto",
            "--tmp-bytes": limits.tmp,
            "--tmp-inodes": limits.tmp_inodes,
            "--screen": Policy(allow_modules=limits.modules).to_json(),
            "--preload": ",".join(limits.modules),
        }
        scratch = [word for place in _SCRATCH for word in ("--scratch", place)]
        return [*scratch, *(str(word) for pair in given.items() for word in pair)]

    def close(self) -> None:
        """End it, and all processes that it has started. Idempotent."""
        self.usable = False
        self._socket.close(linger=0)
        self._context.destroy(linger=0)  # the runner ends when its connection does
        if self._process is not None:
            for end in (None, self._process.terminate, self._process.kill):
                if end is not None:
                    end()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_END_S)
                    break
            if self._process.stdout is not None:
                self._process.stdout.close()
            os.close(self._ended)
            self._process = None
        shutil.rmtree(self._home, ignore_errors=True)

    # ---- jobs ----

    def run(
        self, run: wire.Run, payload: Sequence[wire.Frame], *, on_piece: OnPiece | None = None
    ) -> tuple[wire.Done, Sequence[wire.Frame]]:
        """Run one job and wait for its end. Raises EngineError if the worker fails: whether the job ran is unknown."""
        self.jobs += 1
        epoch = self.jobs
        self.usable = False  # until it has reported that it is free
        self._send(msgspec.structs.replace(run, epoch=epoch), payload)
        if on_piece is not None:
            self._send(wire.Stream(job_id=run.job_id, epoch=epoch))
        deadline = time.monotonic() + run.wall_s * max(1, len(run.calls)) + _PATIENCE_S
        while True:
            message, frames = self._receive(deadline)
            if isinstance(message, wire.Printed) and on_piece is not None:
                on_piece(message.name, message.offset, bytes(frames[0]))
            elif isinstance(message, wire.Done):
                return message, frames
            elif isinstance(message, wire.Broken):
                raise EngineError(f"the local worker has failed: {message.reason}")

    def free(self) -> bool:
        """Wait until it has cleaned up after its job. False: it must not get another one."""
        deadline = time.monotonic() + _PATIENCE_S
        while not isinstance(message := self._receive(deadline)[0], wire.Freed):
            if isinstance(message, wire.Broken):
                return False
        self.usable = not message.residue
        return self.usable

    # ---- messages ----

    def _send(self, message: wire.Message, payload: Sequence[wire.Frame] = ()) -> None:
        self._socket.send_multipart(wire.encode(message, payload), copy=False)

    def _receive(self, deadline: float) -> tuple[wire.FromRunner, Sequence[wire.Frame]]:
        """The next message. Raises EngineError when the worker has ended or says nothing until the deadline."""
        while (left_s := deadline - time.monotonic()) > 0:
            there = dict(self._poller.poll(int(left_s * 1000) + 1))
            if self._socket in there:
                return wire.decode(wire.from_runner, self._socket.recv_multipart())
            if there:
                raise self._end()
        raise StartError(f"the local worker did not answer in time{self._log()}")

    def _end(self) -> EngineError:
        """The error for a worker that has ended, with the reason."""
        if (told := self._line()) and "part" in told:
            return refusal(told["part"], told["why"])
        return StartError(f"the local worker has ended{self._log()}")

    def _line(self) -> Mapping[str, str]:
        """The next line of the shell's output."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            found = json.loads(self._process.stdout.readline() or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _log(self) -> str:
        """The last part of its log."""
        with contextlib.suppress(OSError):
            text = (self._home / "log").read_bytes()[-_LOG_BYTES:].decode(errors="replace").strip()
            return f": {visible_block(text)}" if text else ""
        return ""
