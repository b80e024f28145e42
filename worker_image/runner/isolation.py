"""Which parts of a job's isolation this host grants. Each worker tries them once, before it imports anything.

They are tried in two processes, of which the second one is in the namespaces that the first one has made: a refusal
leaves the worker as it was. Ready tells the daemon which parts are missing, and why.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

from runner import forking, job_mounts, kernel
from runner.job_mounts import JobMounts
from runner.kernel import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID

#: Parts that need namespaces, and the flag of each besides that of the user namespace.
NAMESPACES = {"user": 0, "mount": CLONE_NEWNS, "ipc": CLONE_NEWIPC, "net": CLONE_NEWNET}
#: Whether the kernel enforces RLIMIT_DATA. Where it does not, RLIMIT_AS is used.
DATA_LIMIT = "data limit"
_SOME_BYTES = 1 << 30


class Grant(NamedTuple):
    """The parts of a child's isolation that the host allows, and why the others are missing."""

    parts: frozenset[str]
    missing: tuple[str, ...] = ()

    @property
    def level(self) -> str:
        """One word for the status."""
        if self.parts >= NAMESPACES.keys():
            return "namespaces"
        return "partial" if self.parts & NAMESPACES.keys() else "plain"


BARE = Grant(frozenset())


def probe() -> Grant:
    """Try all parts."""
    parts, missing = {"seccomp"}, []
    for name, refusal in _in_a_fork(_try_all):
        if not refusal:
            parts.add(name)
        elif name in NAMESPACES:
            missing.append(f"{name} namespace: {refusal}" if name != "user" else f"user and pid namespaces: {refusal}")
        elif name != DATA_LIMIT:
            missing.append(f"{name}: {refusal}")
    return Grant(frozenset(parts), tuple(missing))


def without_namespaces(grant: Grant) -> Grant:
    """For a template with isolation: plain."""
    others = [each for each in grant.missing if "namespace" not in each.partition(":")[0]]
    return Grant(grant.parts - NAMESPACES.keys(), ("namespaces: the template's isolation is plain", *others))


def _try_all() -> list[tuple[str, str]]:
    of_the_kernel = _try_kernel()
    try:
        kernel.own_user_namespace(CLONE_NEWPID)
        return [*_in_a_fork(_try_as_a_child), *of_the_kernel]
    except OSError as error:
        return [("user", str(error)), *of_the_kernel]


def _try_as_a_child() -> list[tuple[str, str]]:
    tries: dict[str, Callable[[], object]] = {
        "user": _try_namespaces_of_a_child,
        "mount": _try_mounts,
        "ipc": lambda: kernel.unshare(CLONE_NEWIPC),
        "net": lambda: kernel.unshare(CLONE_NEWNET),
    }
    return [(name, _refusal(attempt)) for name, attempt in tries.items()]


def _try_namespaces_of_a_child() -> None:
    """As the zygote does for a child, and as the child does."""
    kernel.set_dumpable(True)
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    kernel.unshare(CLONE_NEWPID)
    kernel.setns(own, CLONE_NEWPID)
    kernel.own_user_namespace()


def _try_mounts() -> None:
    """As the zygote does once, and as each child does after it."""
    kernel.unshare(CLONE_NEWNS)
    job_mounts.cover()
    kernel.own_user_namespace(CLONE_NEWNS)
    kernel.perform(JobMounts(_SOME_BYTES, 64).steps)


def _try_kernel() -> list[tuple[str, str]]:
    """What a kernel may lack besides namespaces; gVisor's lacks some of it."""
    return [
        ("landlock", "" if kernel.landlock_abi() else "this kernel has none"),
        ("noexec", "" if _noexec_holds() else "this kernel maps files of the scratch space as programs"),
        (DATA_LIMIT, "" if _data_limit_holds() else "this kernel does not count it"),
    ]


def _noexec_holds() -> bool:
    path = f"/tmp/.{os.getpid()}"  # noqa: S108 - the scratch space
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b", buffering=0) as file:  # noqa: PTH123
        os.unlink(path)  # noqa: PTH108
        file.write(bytes(mmap.PAGESIZE))
        try:
            mmap.mmap(
                file.fileno(), mmap.PAGESIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC
            ).close()
        except PermissionError:
            return True
    return False


def _data_limit_holds() -> bool:
    resource.setrlimit(resource.RLIMIT_DATA, (_SOME_BYTES, _SOME_BYTES))
    try:
        mmap.mmap(-1, 2 * _SOME_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return True
    return False


def _refusal(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return str(error.strerror or error)
    return ""


def _in_a_fork(work: Callable[[], list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Call a function in a process of its own. Raises OSError if that dies."""
    reading, writing = os.pipe()
    pid = forking.quick_fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.write(writing, "\0".join(chain.from_iterable(work())).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answers:  # noqa: PTH123 - a descriptor
        words = answers.read().decode().split("\0")
    os.waitpid(pid, 0)
    if len(words) == 1:
        raise OSError(0, "the process that tried it died")
    return list(zip(words[::2], words[1::2], strict=True))
