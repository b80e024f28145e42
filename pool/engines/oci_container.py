"""One container of the engine oci: its end, its exit status and its output, without a supervisor process (oci.py)."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import threading
from pathlib import Path

from pool.engines import runc
from pool.engines.diagnosis import GONE, RUNNING, ending, readable
from pool.engines.runc import Runc, RuncError
from pool.errors import EngineError

#: The cgroup below which all containers of this host are.
CGROUP = "/pool-oci"
#: How long a killed process may take to end. runc thaws a frozen one first.
END_TIMEOUT_S = 1.0
#: The bytes of a container's output that are kept.
OUTPUT_BYTES = 65536


def cgroup(container_id: str) -> str:
    return f"{CGROUP}/{container_id}"


class OciContainer:
    """One started container."""

    def __init__(self, engine_runc: Runc, place: Path, pid: int | None) -> None:
        """`place`: its directory. `pid`: of its first process, None if that has ended."""
        self.id = place.name
        self._runc = engine_runc
        self._place = place
        self._pid = pid
        self._pidfd: int | None = None
        self._output: _Output | None = None  # None: not attached
        self._code: int | None = None
        self._killing = threading.Lock()

    def __repr__(self) -> str:
        return f"OciContainer({self.id})"

    def attach(self) -> None:
        """Open the pidfd and the output pipe. `kill` closes them."""
        if self._output is None and self._place.exists():
            self._pidfd = _open_pidfd(self._pid, self.id)
            self._output = _Output(self._place / "out")

    def kill(self) -> None:
        with self._killing:
            if not self._place.exists():
                return
            self.attach()
            self._end()
            self._reap()
            # A call of runc costs as much as half a start of the container.
            if not (self._pidfd is not None and self._ended() and self._runc.forget(self.id, cgroup(self.id))):
                self._delete()
            self._forget()

    def diagnose(self) -> str:
        if not self._place.exists():
            return GONE
        self.attach()
        words = RUNNING
        if self._ended():
            self._reap()
            words = ending(self._code, out_of_memory=runc.was_out_of_memory(cgroup(self.id)))
        return f"{words}\n{readable(self.output())}".rstrip()

    def pid(self) -> int | None:
        return self._pid if self._place.exists() else None

    def output(self) -> bytes:
        """The last part of its output so far."""
        self.attach()
        return self._output.read() if self._output is not None else b""

    def wait(self, timeout_s: float) -> int | None:
        """Wait until it has ended. Its exit code, 128 and the signal if it was killed; None if that is not known."""
        self.attach()
        if not self._ended(timeout_s):
            raise EngineError(f"the container {self.id} runs on after {timeout_s:g} s")
        self._reap()
        return self._code

    def _delete(self) -> None:
        try:
            self._runc.delete(self.id, log=self._place / "runc.log")
        except RuncError as error:
            raise EngineError(f"the container {self.id} could not be removed: {error.message}") from error
        self._reap()

    def _end(self) -> None:
        """Kill its first process. The kernel then ends all others of the pid namespace."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._ended(END_TIMEOUT_S)

    def _ended(self, timeout_s: float = 0) -> bool:
        if self._pidfd is None:
            return True
        poller = select.poll()  # select() takes no descriptor above 1023
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000))

    def _reap(self) -> None:
        """Take the exit status of a first process that has ended, if it is a child of this one."""
        if self._pidfd is None or self._code is not None:
            return
        with contextlib.suppress(ChildProcessError):
            found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            if found is not None:
                self._code = found.si_status + (0 if found.si_code == os.CLD_EXITED else 128)

    def _forget(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        if self._output is not None:
            self._output.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def _open_pidfd(pid: int | None, container_id: str) -> int | None:
    """None if the process has ended and is not a child of this one, or if another process has its number now."""
    if pid is None:
        return None
    with contextlib.suppress(OSError):
        opened = os.pidfd_open(pid)
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        if int(status[1]) == os.getpid() or container_id in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii"):
            return opened
        os.close(opened)
    return None


class _Output:
    """The reading end of a container's pipe, which keeps what the container wrote before it ended."""

    def __init__(self, path: Path) -> None:
        self._kept = b""
        try:
            self._pipe: int | None = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._pipe = None
        self._reading = threading.Lock()

    def read(self) -> bytes:
        """The last part of what was written."""
        with self._reading, contextlib.suppress(BlockingIOError):
            while self._pipe is not None and (more := os.read(self._pipe, OUTPUT_BYTES)):
                self._kept = (self._kept + more)[-OUTPUT_BYTES:]
        return self._kept

    def close(self) -> None:
        with self._reading:
            if self._pipe is not None:
                os.close(self._pipe)
                self._pipe = None
