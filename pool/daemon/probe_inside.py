"""The lockdown probe: a job that tries to break out of its worker. It runs in a worker, never in the daemon.

`main` returns what it was sent and the next number, by which the daemon sees that arguments and values pass, and a row
for each attempt: [name, verdict, observation]. "held": the attempt was refused. "broken": it
succeeded, or failed for another reason. "skipped": the part of the lockdown that would refuse it is missing on this
host, and the worker has reported that. The daemon sends this file as text, so it imports nothing of the project, and
nothing that a worker has not imported. An attempt that succeeds does no harm.
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

HELD, BROKEN, SKIPPED = "held", "broken", "skipped"
REFUSED = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EROFS}
_NO_SIGNAL = {errno.EPERM, errno.ESRCH}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
#: Numbers on x86_64 and aarch64; with arguments that do nothing where they are allowed.
_CALLS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "ptrace": (101, 117, (0x4206, 1, 0, 0)),  # PTRACE_SEIZE of process 1
    "process_vm_readv": (310, 270, (1, 0, 0, 0, 0, 0)),
    "mount": (165, 40, (0, 0, 0, 0, 0)),
    "umount2": (166, 39, (0, 0)),
    "pivot_root": (155, 41, (0, 0)),
    "chroot": (161, 51, (0,)),
    "setns": (308, 268, (-1, 0)),
    "unshare": (272, 97, (0,)),
    "bpf": (321, 280, (0, 0, 0)),
    "perf_event_open": (298, 241, (0, 0, -1, -1, 0)),
    "userfaultfd": (323, 282, (0,)),
    "io_uring_setup": (425, 425, (0, 0)),
    "keyctl": (250, 219, (0, -1, 0)),
    "init_module": (175, 105, (0, 0, 0)),
    "kexec_load": (246, 104, (0, 99, 0, 0)),
    "mknodat": (259, 33, (-100, 0, stat.S_IFCHR, 0)),
    "memfd_create": (319, 279, (0, 0)),
    "seccomp": (317, 277, (1, 0, 0)),
    "socket": (41, 198, (socket.AF_UNIX, socket.SOCK_STREAM, 0)),
}
_PR_GET_DUMPABLE, _PR_GET_SECCOMP, _PR_GET_NO_NEW_PRIVS = 3, 21, 39
_F_GETFD = 1
_STACK_BYTES = 1 << 18
#: A child that shares this process's memory, of which a fork would have a hundred pages copied, and uses none of it: it
#: makes the call that is put between these two.
_IN_A_CHILD = bytes.fromhex(
    "b838000000 bf11410000 31f6 31d2 4531d2 4531c0 0f05"  # clone(CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0)
    "85c0 7401 c3"  # in the parent: return
)
_AND_ENDS = bytes.fromhex("f7d0 c1e81f 89c7 b8e7000000 0f05")  # exit_group(eax >= 0)
#: getpid, by the entry of 32 bits and by its number in the x32 interface.
_INT80, _X32 = bytes.fromhex("b814000000 cd80"), bytes.fromhex("b827000040 0f05")
_NATIVE = 0 if os.uname().machine == "x86_64" else 1


class ThroughError(Exception):
    """An attempt that succeeded, with its result."""


def main(number: int, missing: Sequence[str], options: Sequence[str], *limits: int) -> list[Any]:
    """Try everything. `missing`: parts of the lockdown that the host refuses; `options` and limits: of the template."""
    attempts = _attempts(missing, options, *limits)
    return [[number, number + 1], [_row(name, attempt if wanted else None) for name, wanted, attempt in attempts]]


def _attempts(
    missing: Sequence[str], options: Sequence[str], processes: int, memory: int, tmp: int
) -> list[tuple[str, bool, Callable[[], str]]]:
    """Each with its name, and whether something has to stop it."""
    nested = not any(each.startswith(("user", "namespaces")) for each in missing)
    mounted = nested and not any(each.startswith("mount") for each in missing)
    covered = mounted or not any(each.startswith("landlock") for each in missing)
    return [
        ("privileges", True, _privileges),
        ("capabilities", True, _capabilities),
        *((f"system call {name}", True, _call(name)) for name in _CALLS),
        ("new namespaces by clone", True, _clone),
        ("run a program", "subprocess" not in options, _execute),
        ("other binary interfaces", _NATIVE == 0, _other_interfaces),
        ("network", True, _network),
        ("write to the root file system", True, _write),
        ("write to a device", not any(each.startswith("landlock") for each in missing), _device),
        ("run from scratch space", not any(each.startswith("noexec") for each in missing), _scratch_flags),
        ("scratch space past its size", mounted, lambda: _scratch_size(tmp)),
        ("the worker's link", mounted, _link),
        ("read of other processes", covered, _read_others),
        ("signal another process", nested, _signal_others),
        ("limits and priority of another process", True, _change_others),
        ("descriptors that were left open", True, _descriptors),
        ("processes past the limit", nested, lambda: _processes(processes)),
        ("memory past the limit", True, lambda: _memory(memory)),
    ]


# ---- the result of an attempt ----


def _row(name: str, attempt: Callable[[], str] | None) -> list[str]:
    if attempt is None:
        return [name, SKIPPED, "the part that stops it is missing, or the template allows it"]
    try:
        return [name, HELD, attempt()[:200]]
    except ThroughError as seen:
        return [name, BROKEN, str(seen)[:200]]
    except Exception as error:  # noqa: BLE001 - an attempt that fails in another way proves nothing
        return [name, BROKEN, f"it could not be tried: {error!r:.150}"]


def _refused(attempt: Callable[[], object], what: str) -> str:
    """The name of the errno that refused the attempt. Raises ThroughError for everything else."""
    try:
        got = attempt()
    except OSError as error:
        if error.errno in REFUSED or error.errno == errno.ESRCH:
            return errno.errorcode[error.errno]
        raise ThroughError(f"{what}: {error}") from None
    raise ThroughError(f"{what}: it went through ({got!r:.60})")


# ---- system calls ----


def _raw(number: int, *arguments: int) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _call(name: str) -> Callable[[], str]:
    *numbers, arguments = _CALLS[name]
    return lambda: _refused(lambda: _raw(int(numbers[_NATIVE]), *arguments), name)


def _clone() -> str:
    return _refused(_fork_into_namespace, "clone(CLONE_NEWUSER)")


def _fork_into_namespace() -> int:
    child = _raw(56 if _NATIVE == 0 else 220, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


# ---- rights ----


def _privileges() -> str:
    found = {
        "uid": os.getuid(),
        "no_new_privs": _libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
        "dumpable": _libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0),
        "seccomp": _libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0),
    }
    if found["uid"] == 0 or (found["no_new_privs"], found["dumpable"], found["seccomp"]) != (1, 0, 2):
        raise ThroughError(str(found))
    return str(found)


def _capabilities() -> str:
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _raw(125 if _NATIVE == 0 else 90, ctypes.addressof(header), ctypes.addressof(sets))
    if any(sets):
        raise ThroughError(f"capget gives {list(sets)}")
    return "none in any set"


# ---- programs and binary interfaces ----


def _execute() -> str:
    return _refused(_run_program, "execve")


def _run_program() -> int:
    """In a child, because a program that starts replaces the process. The C library makes it without a copy of memory
    and passes on the error of execve.
    """
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})
    os.waitpid(child, 0)
    return child


def _other_interfaces() -> str:
    """Try the 32-bit entry and the x32 numbers, in children because a signal may end them."""
    seen = [_dies(_INT80), _dies(_X32)]
    if not all(seen):
        raise ThroughError("a call of another binary interface went through")
    return ", ".join(seen)


def _dies(attempt: bytes) -> str:
    """The signal or the error that ends a child's attempt; "" if it succeeded."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_IN_A_CHILD + attempt + _AND_ENDS)
    child = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    if child < 0:
        raise OSError(-child, os.strerror(-child))
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return "" if os.WEXITSTATUS(status) else "an error"


# ---- network and files ----


def _network() -> str:
    families = ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK")
    seen = {_refused(partial(socket.socket, getattr(socket, each), socket.SOCK_DGRAM), each) for each in families}
    return ", ".join(sorted(seen))


def _write() -> str:
    places = ("/", "/usr", "/usr/lib", "/etc", "/opt/pool", "/datasets", "/dev", "/var")
    seen = {_refused(partial(_create, f"{place}/probe"), place) for place in filter(os.path.isdir, places)}
    return ", ".join(sorted(seen))


def _create(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(path)  # noqa: PTH108


def _device() -> str:
    """Write to a device that everybody may write to. Only Landlock refuses it to a job."""
    return _refused(lambda: os.open("/dev/full", os.O_WRONLY), "/dev/full")


def _scratch_flags() -> str:
    wanted = os.ST_NOEXEC | os.ST_NOSUID | os.ST_NODEV
    for place in ("/tmp", "/dev/shm"):  # noqa: S108
        if os.statvfs(place).f_flag & wanted != wanted:
            raise ThroughError(f"{place} is mounted without noexec, nosuid or nodev")
    return "noexec, nosuid, nodev"


def _scratch_size(tmp: int) -> str:
    for place in ("/tmp", "/dev/shm"):  # noqa: S108
        found = os.statvfs(place)
        if found.f_blocks * found.f_frsize > tmp + mmap.PAGESIZE or found.f_files == 0:
            raise ThroughError(f"{place} has {found.f_blocks * found.f_frsize} bytes, {tmp} are the limit")
    return f"{tmp} bytes in all"


# ---- the link and other processes ----


def _link() -> str:
    if os.path.exists("/run/pool/link.sock"):  # noqa: PTH110
        raise ThroughError("/run/pool/link.sock can be seen")
    return "not there"


def _read_others() -> str:
    for path in [f"/proc/{pid}/{name}" for pid in range(1, 65) for name in ("mem", "environ", "maps", "cmdline")]:
        if (fd := _libc.open(path.encode(), os.O_RDONLY)) >= 0:
            os.close(fd)
            raise ThroughError(f"{path} can be read")
    return "none of /proc/1 to /proc/64"


def _signal_others() -> str:
    """Signal 0 only checks whether a signal could be sent. Process 1 is the init of this job's namespace."""
    for pid in range(2, 200):
        if pid != os.getpid() and (_libc.kill(pid, 0) == 0 or ctypes.get_errno() not in _NO_SIGNAL):
            raise ThroughError(f"process {pid} can be signalled")
    return "no other process"


def _change_others() -> str:
    """Sets limits and priority to the values that they have. If that is allowed, changing them is allowed too."""
    other = os.getppid() or 1
    files, process = resource.RLIMIT_NOFILE, os.PRIO_PROCESS
    seen = [
        _refused(lambda: resource.prlimit(other, files, resource.prlimit(other, files)), "prlimit"),
        _refused(lambda: os.sched_setaffinity(other, os.sched_getaffinity(other)), "sched_setaffinity"),
        _refused(lambda: os.setpriority(process, other, os.getpriority(process, other)), "setpriority"),
    ]
    return ", ".join(sorted(set(seen)))


# ---- limits ----


def _descriptors() -> str:
    """A job has 0, 1, 2 and the channel for its answer, which is a socket without a name."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    found = [(fd, os.fstat(fd).st_mode) for fd in range(most) if _libc.fcntl(fd, _F_GETFD) >= 0]
    others = [mode for fd, mode in found if fd > 2]
    if len(others) != 1 or not stat.S_ISSOCK(others[0]):
        raise ThroughError(f"{len(others)} beyond the standard three")
    return f"{len(found)} are open"


def _processes(limit: int) -> str:
    """Start threads up to the limit. They count as processes, and with small stacks take next to no memory."""
    running, done = _thread._count, _thread.allocate_lock()  # noqa: SLF001 - the module threading has no cheaper way
    before, usual = running(), _thread.stack_size(_STACK_BYTES)
    done.acquire()
    try:
        for _ in range(limit + 1):
            _thread.start_new_thread(_pass, (done,))
    except RuntimeError:
        return f"{running() - before + 1} at the same time"
    finally:
        _thread.stack_size(usual)
        done.release()
        while running() > before:
            time.sleep(0.0001)
    raise ThroughError(f"{limit + 2} at the same time, {limit} are the limit")


def _pass(done: _thread.LockType) -> None:
    with done:
        pass


def _memory(limit: int) -> str:
    try:
        taken = bytearray(limit + (64 << 20))
    except MemoryError:
        return f"{limit + (64 << 20)} bytes are refused"
    raise ThroughError(f"{len(taken)} bytes, {limit} are the limit")


if __name__ == "__main__":  # to run the probe without a sandbox
    for row in main(0, [], [], 32, 256 << 20, 64 << 20)[1]:
        sys.stdout.write(f"{row[0]:45}{row[1]:10}{row[2]}\n")
