"""Which parts of a job's confinement this host grants: each is tried in a process of its own, and a refusal is worded.

A survey is made once by each worker, before it imports anything; what is missing goes into its Ready.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import resource
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runner import furniture, kernel, landlock
from runner.furniture import Furniture
from runner.kernel import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID

#: Parts that come with namespaces, and what each needs besides a user namespace.
NAMESPACES = {"user": 0, "mount": CLONE_NEWNS, "ipc": CLONE_NEWIPC, "net": CLONE_NEWNET}
#: The part that makes RLIMIT_DATA hold; where it does not, RLIMIT_AS has to do.
DATA_LIMIT = "data limit"
_SOME_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Grant:
    """What the host allows: the parts of a child's confinement, and why any are missing."""

    parts: frozenset[str]
    missing: tuple[str, ...] = ()

    @property
    def level(self) -> str:
        """In one word, for the status."""
        if self.parts >= NAMESPACES.keys():
            return "namespaces"
        return "partial" if self.parts & NAMESPACES.keys() else "plain"


BARE = Grant(frozenset())


def survey() -> Grant:
    """Try each part in processes of its own, so that a refusal leaves nothing half done here."""
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


def plain(grant: Grant) -> Grant:
    """The same without namespaces, because the template wants it so."""
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
        "user": _try_nest,
        "mount": _try_mounts,
        "ipc": lambda: kernel.unshare(CLONE_NEWIPC),
        "net": lambda: kernel.unshare(CLONE_NEWNET),
    }
    return [(name, _refusal(attempt)) for name, attempt in tries.items()]


def _try_nest() -> None:
    """What the zygote does for a child, and what the child does."""
    kernel.set_dumpable(True)
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    kernel.unshare(CLONE_NEWPID)
    kernel.setns(own, CLONE_NEWPID)
    kernel.own_user_namespace()


def _try_mounts() -> None:
    """What the zygote does once, and what each child does after it."""
    kernel.unshare(CLONE_NEWNS)
    furniture.cover()
    kernel.own_user_namespace(CLONE_NEWNS)
    Furniture(_SOME_BYTES, 64, own_proc=False).place()


def _try_kernel() -> list[tuple[str, str]]:
    """What a kernel may lack that is no namespace; gVisor's is one."""
    return [
        ("landlock", "" if landlock.abi() else "this kernel has none"),
        ("noexec", "" if _noexec_holds() else "this kernel maps files of the scratch space as programs"),
        (DATA_LIMIT, "" if _data_limit_holds() else "this kernel does not count it"),
    ]


def _noexec_holds() -> bool:
    with tempfile.TemporaryFile(dir="/tmp") as file:
        file.write(bytes(mmap.PAGESIZE))
        file.flush()
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
    """The answer of a function that was run in a process of its own."""
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
