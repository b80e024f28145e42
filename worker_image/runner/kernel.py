"""The system calls that Python does not offer, each as a function that raises OSError. It decides nothing.

Numbers and flags are those of the kernel's headers: sched.h, mount.h, prctl.h, seccomp.h, landlock.h, capability.h.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

from runner import syscalls

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
_CAPABILITY_VERSION_3 = 0x20080522
_LANDLOCK_VERSION = 1

#: struct sock_fprog: the number of instructions, and where they are.
_FILTER_HEAD = struct.Struct("=H6xQ")

_MADV_COLLAPSE = 25

SIGSET_BYTES = 128
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000
_MAP_FAILED = ctypes.c_size_t(-1).value

#: What prepared calls write to. It lies together: after a fork a page that is written to is copied, a large one split.
_written = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
_ALIGNED_BYTES = 16

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
libc.sigprocmask.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
libc.mmap.restype = ctypes.c_size_t
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_numbers = syscalls.numbers()
#: The same, and Python's lock stays held over the call.
_locked = ctypes.PyDLL(None, use_errno=True)
#: As os.fork(), without the hooks of Python's modules. For a process with one thread only.
fork = _locked.fork


def room(content: bytes) -> ctypes.Array[ctypes.c_char]:
    """For calls that are prepared and write to it. With this content until then."""
    place = _written.tell()
    _written.write(content.ljust(-(-len(content) // _ALIGNED_BYTES) * _ALIGNED_BYTES, b"\0"))
    return (ctypes.c_char * len(content)).from_buffer(_written, place)


def number() -> ctypes.c_long:
    """The same for the result of such a call."""
    return ctypes.c_long.from_buffer(room(bytes(8)))


def _check(result: int, doing: str) -> int:
    if result < 0:
        raise failure(doing)
    return result


def failure(doing: str) -> OSError:
    """Of the last call."""
    number = ctypes.get_errno()
    return OSError(number, f"{doing}: {os.strerror(number)}")


def call(name: str, *arguments: object) -> int:
    """A system call by its name; integers, pointers and bytes as ctypes takes them."""
    return _check(libc.syscall(ctypes.c_long(_numbers[name]), *arguments), name)


class Step(NamedTuple):
    """A call that is prepared before the fork. A child that only makes it has to copy few pages."""

    function: Callable[..., int]
    arguments: tuple[object, ...]  #: a c_long is read when the call is made
    doing: str
    result: ctypes.c_long | ctypes.c_int | None = None  #: is set to what the call returns
    label: str = ""  #: for `if_zero`
    if_zero: str = ""  #: in a CallTable: the label of the step that comes next if this one returns 0


def calling(name: str, *arguments: object, result: ctypes.c_long | ctypes.c_int | None = None) -> Step:
    return Step(libc.syscall, (ctypes.c_long(_numbers[name]), *arguments), name, result)


def setting(variable: ctypes.c_int, number: int) -> Step:
    """To a number from 0 on, which abs() returns as it is."""
    return Step(libc.abs, (number,), "abs", variable)


def perform(steps: Iterable[Step]) -> None:
    """One after the other. Raises OSError at the first that fails."""
    for function, arguments, doing, result, *_ in steps:
        value = function(*arguments)
        if value < 0:
            _check(-1, doing)
        if result is not None:
            result.value = value


def prctl(option: int, value: int) -> None:
    _check(libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def function_at(address: int) -> Callable[..., int]:
    """Machine code that takes and returns pointers. Python's lock stays held, as a fork in it needs."""
    function: Callable[..., int] = _locked._FuncPtr(address)  # noqa: SLF001 - with PYFUNCTYPE errno is not kept
    function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p] * 2  # type: ignore[attr-defined]
    return function


def set_dumpable(wanted: bool) -> None:  # noqa: FBT001
    """Whether processes of the same user may look into this one, and whether its /proc files are its own."""
    prctl(_PR_SET_DUMPABLE, int(wanted))


def die_with_parent() -> None:
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def dying_with_parent() -> Step:
    return _setting(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _setting(option: int, value: int) -> Step:
    return Step(libc.prctl, (option, value, 0, 0, 0), f"prctl {option}")


def leaving_session() -> Step:
    return Step(libc.setsid, (), "setsid")


def unblocking_signals() -> Step:
    none = room(bytes(SIGSET_BYTES))
    return Step(libc.sigprocmask, (int(signal.SIG_SETMASK), none, None), "sigprocmask")


def adopt_orphans() -> None:
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def map_room(size: int) -> int:
    """The address of private, writable memory for which nothing is set aside until it is touched."""
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    address: int = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, kind, -1, 0)
    if address == _MAP_FAILED:
        _check(-1, "mmap")
    return address


def map_file(address: int, size: int, *, descriptor: int, start: int) -> None:
    """Private, writable pages of a file, in the place of others. `start`: a multiple of the page size."""
    kind = mmap.MAP_PRIVATE | _MAP_FIXED
    if libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, kind, descriptor, start) == _MAP_FAILED:
        _check(-1, "mmap")


def unmap(address: int, size: int) -> None:
    _check(libc.munmap(address, size), "munmap")


def allow_running(start: int, length: int) -> bool:
    """Make memory one that can be read and run. False where that is refused."""
    return _protect(start, length, mmap.PROT_READ | mmap.PROT_EXEC)


def allow_writing(start: int, length: int) -> bool:
    """The same for memory that can be written."""
    return _protect(start, length, mmap.PROT_READ | mmap.PROT_WRITE)


def _protect(start: int, length: int, rights: int) -> bool:
    return bool(libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(length), rights) == 0)


def collapse(start: int, length: int) -> bool:
    """Put a range of anonymous memory into large pages. False where the kernel cannot, or has none."""
    return advise(start, length, _MADV_COLLAPSE)


def make_private(start: int, length: int) -> None:
    """Put a private copy in the place of shared memory that can be read."""
    content = ctypes.string_at(start, length)
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    if libc.mmap(start, length, mmap.PROT_READ | mmap.PROT_WRITE, kind, -1, 0) == _MAP_FAILED:
        _check(-1, "mmap")
    ctypes.memmove(start, content, length)


def forget(start: int, length: int) -> bool:
    """Unmap pages of a file, until they are used again. What was written to them is lost."""
    return advise(start, length, mmap.MADV_DONTNEED)


def forgetting(start: int, length: int) -> Step:
    return Step(libc.madvise, (start, length, mmap.MADV_DONTNEED), "madvise")


def advise(start: int, length: int, advice: int) -> bool:
    return bool(libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), advice) == 0)


# ---- namespaces ----


def unshare(flags: int) -> None:
    _check(libc.unshare(ctypes.c_int(flags)), "unshare")


def unsharing(flags: int) -> Step:
    return Step(libc.unshare, (flags,), "unshare")


def setns(fd: int, flags: int) -> None:
    perform([entering(fd, flags)])


def entering(fd: int, flags: int) -> Step:
    """A namespace."""
    return Step(libc.setns, (fd, flags), "setns")


def own_user_namespace(flags: int = 0) -> None:
    """Enter a new user namespace, and others by `flags`. User and group keep their numbers."""
    maps = identity_maps()
    unshare(CLONE_NEWUSER | flags)
    write_own([("/proc/self/setgroups", b"deny"), *maps])


def identity_maps() -> list[tuple[str, bytes]]:
    """Files to write in a new user namespace, so that user and group have the same numbers in it as outside."""
    numbers = {"uid": os.geteuid(), "gid": os.getegid()}
    return [(f"/proc/self/{kind}_map", b"%d %d 1" % (number, number)) for kind, number in numbers.items()]


def write_own(files: Iterable[tuple[str, bytes]]) -> None:
    """Write files of /proc/self. They belong to the process only while it is dumpable."""
    try:
        perform(writing_own(files))
    finally:
        set_dumpable(False)


def writing_own(files: Iterable[tuple[str, bytes]]) -> list[Step]:
    """A process of which a step fails stays dumpable."""
    fd = number()
    steps = [_setting(_PR_SET_DUMPABLE, 1)]
    for path, content in files:
        writing = Step(libc.write, (fd, content, len(content)), f"write {path}")
        steps += [opening(path, os.O_WRONLY, fd), writing, closing(fd)]
    return [*steps, _setting(_PR_SET_DUMPABLE, 0)]


# ---- mounts ----


def mounting(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> Step:
    words = [each.encode() or None for each in (source, target, kind, options)]
    return Step(libc.mount, (*words[:3], flags, words[3]), f"mount {kind or source or 'flags'} on {target}")


def making_directory(path: str, mode: int) -> Step:
    return Step(libc.mkdir, (path.encode(), mode), f"mkdir {path}")


def setting_umask(mask: int) -> Step:
    return Step(libc.umask, (mask,), "umask")


def changing_directory(path: str) -> Step:
    return Step(libc.chdir, (path.encode(),), f"chdir {path}")


def opening(path: str, flags: int, fd: ctypes.c_long, mode: int = 0) -> Step:
    return Step(libc.open, (path.encode(), flags | os.O_CLOEXEC, mode), f"open {path}", fd)


def closing(fd: ctypes.c_long | ctypes.c_int) -> Step:
    return Step(libc.close, (fd,), "close")


def detaching_mounts() -> Step:
    """Later mounts are seen in this namespace only."""
    return mounting("", "/", "", MS_REC | MS_PRIVATE)


# ---- giving up rights ----


def dropping_capabilities() -> Step:
    """All of them, from every set. With no-new-privileges none of them can come back."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    return calling("capset", header, bytes(24))


def landlock_abi() -> int:
    """Version of the kernel's Landlock; 0 where there is none."""
    try:
        return call("landlock_create_ruleset", None, 0, _LANDLOCK_VERSION)
    except OSError:
        return 0


def forbid_new_privileges() -> None:
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


class Filter:
    """A seccomp program, prepared once and installed by every child."""

    def __init__(self, program: bytes) -> None:
        head = ctypes.create_string_buffer(_FILTER_HEAD.size + len(program))
        at = ctypes.addressof(head) + _FILTER_HEAD.size
        head.raw = _FILTER_HEAD.pack(len(program) // 8, at) + program
        self.installing = calling("seccomp", _SECCOMP_SET_MODE_FILTER, 0, head)

    def install(self) -> None:
        perform([self.installing])
