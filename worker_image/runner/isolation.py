"""Which parts of a job's isolation this host grants. Each worker tries them once, before it imports anything.

Each part is tried in a process of its own. Ready tells the daemon which parts are missing, and why.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import resource
from collections.abc import Callable, Sequence
from typing import NamedTuple

from runner import job_mounts, kernel
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
    """Try each part in a process of its own, so that a refusal leaves this process as it was."""
    parts, missing = {"seccomp"}, []
    for name, refusal in _try_namespaces():
        if refusal:
            missing.append(f"{name} namespace: {refusal}" if name != "user" else f"user and pid namespaces: {refusal}")
        else:
            parts.add(name)
    found = dict(_in_a_fork(_try_kernel))
    parts.update(name for name, refusal in found.items() if not refusal)
    missing += [f"{name}: {refusal}" for name, refusal in found.items() if refusal and name != DATA_LIMIT]
    return Grant(frozenset(parts), tuple(missing))


def without_namespaces(grant: Grant) -> Grant:
    """For a template with isolation: plain."""
    others = [each for each in grant.missing if "namespace" not in each.partition(":")[0]]
    return Grant(grant.parts - NAMESPACES.keys(), ("namespaces: the template's isolation is plain", *others))


def _try_namespaces() -> Sequence[tuple[str, str]]:
    refusals: list[tuple[str, str]] = _in_a_fork(_try_all)
    return refusals


def _try_all() -> list[tuple[str, str]]:
    try:
        kernel.own_user_namespace(CLONE_NEWPID)
        inner: list[tuple[str, str]] = _in_a_fork(_try_as_a_child)
    except OSError as error:
        return [("user", str(error))]
    return inner


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
    """Call a function in a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.write(writing, json.dumps(work()).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answers:  # noqa: PTH123 - a descriptor
        answer = answers.read()
    os.waitpid(pid, 0)
    if not answer:
        raise OSError(0, "the process that tried it died")
    return [(str(name), str(refusal)) for name, refusal in json.loads(answer)]
