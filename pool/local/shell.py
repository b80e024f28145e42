"""A separate program: sets up for the runner what an engine sets up for a container, and becomes the runner.

    keeper ──fork──▶ holder: cgroup, namespaces ──fork──▶ process 1: root file system, rights, filter ──exec──▶ runner
      └ waits, and clears up            └ waits

As root, the last process changes to a user id of its own. Otherwise everything happens in a user namespace, in which
the user keeps its id. If the host refuses a step, the program ends with a line of JSON on stdout that names the part,
and nothing is run. The first line says why there is no cgroup, if there is none.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner import kernel

from pool.local import cgroups
from pool.local.cgroups import Cgroup
from pool.local.profile import outer_filter

REFUSED = 71  #: exit status; the refused part is on stdout
_CLONE_NEWCGROUP, _CLONE_NEWUTS = 0x02000000, 0x04000000
_APART = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWNET
    | _CLONE_NEWUTS
    | _CLONE_NEWCGROUP
)
_ATTRIBUTES = {"readonly": 1, "nosuid": 2, "nodev": 4}
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MNT_DETACH = 2
_EXITING = 0x4  #: among the flags of a process: PF_EXITING
_PR_CAPBSET_DROP = 24
_CAPABILITIES = 64
_SCRATCH = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
_HOSTNAME = b"worker"
#: When the host runs out of memory, the kernel kills a worker before other processes, which have 0.
_OOM_SCORE_ADJ = b"500"


class Refused(Exception):  # noqa: N818 - an answer and no fault of this program
    """The host refuses a part of the lockdown."""

    def __init__(self, part: str, why: str) -> None:
        super().__init__(part, why)
        self.part, self.why = part, why


def main(arguments: Sequence[str]) -> int:
    """`arguments`: the plan as JSON, as `worker.py` makes it. Returns the exit status."""
    plan, caller = json.loads(arguments[0]), os.getppid()
    cgroup, why_not = _cgroup(plan["cgroup"])
    _tell({"cgroup": why_not})
    holder = os.fork()
    if holder == 0:
        _hold(plan, cgroup)
    signal.signal(signal.SIGTERM, lambda _number, _frame: _end(holder))
    status = os.waitstatus_to_exitcode(os.waitpid(holder, 0)[1])
    if cgroup is not None:
        cgroup.remove()
    if _is_ending(caller):  # otherwise the caller still reads the log
        shutil.rmtree(plan["home"], ignore_errors=True)
    return status if status >= 0 else 128 - status


def _is_ending(caller: int) -> bool:
    """Whether it has ended or is ending: the kernel closes a killed caller's files before it removes the process."""
    try:
        flags = int(Path(f"/proc/{caller}/stat").read_bytes().rpartition(b")")[2].split()[6])
    except OSError:
        return True
    return os.getppid() != caller or bool(flags & _EXITING)


def _end(holder: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(holder, signal.SIGKILL)


def _tell(line: Mapping[str, str]) -> None:
    os.write(1, f"{json.dumps(line)}\n".encode())


@contextlib.contextmanager
def _part(name: str) -> Iterator[None]:
    """A step of the lockdown, and the part that it belongs to."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise Refused(name, str(error)) from error


def _cgroup(wanted: Mapping[str, Any]) -> tuple[Cgroup | None, str]:
    try:
        return cgroups.make(f"pool-local-{os.getpid()}", **wanted), ""
    except OSError as error:
        return None, str(error)


# ---- the holder ----


def _hold(plan: Mapping[str, Any], cgroup: Cgroup | None) -> None:
    """Enter the namespaces and wait for the runner. Never returns."""
    status = 1
    try:
        kernel.die_with_parent()
        if cgroup is not None:
            cgroup.enter()
        _separate()
        pid = os.fork()
        if pid == 0:
            _become(plan, cgroup)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except Refused as refused:
        _tell({"part": refused.part, "why": refused.why})
        status = REFUSED
    except BaseException:  # noqa: BLE001 - the last frame of this process
        traceback.print_exc()
    finally:
        os._exit(status if status >= 0 else 128 - status)


def _separate() -> None:
    """Enter new namespaces. The pid namespace applies to the processes that it starts."""
    if os.geteuid() == 0:
        with _part("mount and pid namespaces, which root makes with CAP_SYS_ADMIN"):
            kernel.unshare(_APART)
        return
    with _part("user namespace"):
        kernel.own_user_namespace()
    with _part("mount, pid, ipc, net, uts and cgroup namespaces"):
        kernel.unshare(_APART)


# ---- process 1 ----


def _become(plan: Mapping[str, Any], cgroup: Cgroup | None) -> None:
    """Become the runner. Returns only by an exception, in the holder's handler."""
    kernel.die_with_parent()
    with _part("root file system"):
        _make_root(plan, cgroup)
    with _part("host name"):
        kernel.call("sethostname", _HOSTNAME, len(_HOSTNAME))
    with _part("limits"):
        _limit(plan["limits"])
    with _part("seccomp filter"):
        filtering = kernel.Filter(outer_filter(plan["seccomp"]))
    with _part("rights"):
        _give_up_rights(plan["uid"])
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    with _part("seccomp filter"):
        filtering.install()
    with _part("interpreter"):
        _execute(plan)


def _execute(plan: Mapping[str, Any]) -> None:
    told = os.dup(1)  # is closed by the exec
    os.dup2(2, 1)  # what the runner prints is for the log
    try:
        os.execve(plan["program"], plan["command"], plan["environment"])  # noqa: S606
    finally:
        os.dup2(told, 1)


def _give_up_rights(uid: int) -> None:
    for capability in range(_CAPABILITIES):
        with contextlib.suppress(OSError):  # this kernel does not have this capability
            kernel.prctl(_PR_CAPBSET_DROP, capability)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    kernel.perform([kernel.dropping_capabilities()])
    kernel.forbid_new_privileges()
    kernel.die_with_parent()  # again, because the change of credentials has cleared it
    if 0 in (*os.getresuid(), *os.getresgid()):
        raise PermissionError("the runner would be root")


def _limit(limits: Mapping[str, int]) -> None:
    """Set limits that no process of the worker can raise. A lower one is kept."""
    kernel.write_own([("/proc/self/oom_score_adj", _OOM_SCORE_ADJ)])
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))


# ---- its root file system ----


def _make_root(plan: Mapping[str, Any], cgroup: Cgroup | None) -> None:
    """A tmpfs with read-only mounts of the host, and two small writable tmpfs. The host's root is unmounted."""
    root = plan["root"]
    kernel.perform([kernel.detaching_mounts(), kernel.mounting("tmpfs", root, "tmpfs", _SCRATCH, "size=1m,mode=755")])
    os.umask(0o022)
    for target, content in plan["links"].items():
        _symlink(f"{root}{target}", content)
    for target, content in plan["files"].items():
        _parent(f"{root}{target}")
        Path(f"{root}{target}").write_text(content, encoding="utf-8")
    for source, target in plan["binds"]:
        _bind(source, f"{root}{target}", read_only=True)
    for device in plan["devices"]:
        _bind(device, f"{root}{device}", read_only=False)
    for place in ("/run", "/sys/fs/cgroup", "/dev/pts", "/proc", *plan["scratch"]):
        os.makedirs(f"{root}{place}", exist_ok=True)  # noqa: PTH103
    if cgroup is not None:
        for place, source in cgroup.directories.items():
            _bind(str(source), f"{root}/sys/fs/cgroup/{place}".rstrip("/"), read_only=True)
    size = f"size={plan['tmp_bytes']},nr_inodes={plan['tmp_inodes']},mode=1777"
    for place in plan["scratch"]:
        kernel.perform([kernel.mounting("tmpfs", f"{root}{place}", "tmpfs", _SCRATCH, size)])
    with _part("proc file system"):
        kernel.perform([kernel.mounting("proc", f"{root}/proc", "proc", _SCRATCH)])
    _enter(root)


def _enter(root: str) -> None:
    """Make it the root of this namespace. pivot_root(2) explains the two points."""
    os.chdir(root)
    kernel.call("pivot_root", b".", b".")
    kernel.call("umount2", b".", _MNT_DETACH)
    os.chdir("/")
    read_only = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | _SCRATCH
    kernel.perform([kernel.mounting("", "/", "", read_only)])
    os.chdir("/tmp")  # noqa: S108 - the worker's own


def _bind(source: str, target: str, *, read_only: bool) -> None:
    """Mount it with the mounts below it, because a user namespace may not leave those out. Devices remain usable."""
    if os.path.isdir(source):  # noqa: PTH112
        os.makedirs(target, exist_ok=True)  # noqa: PTH103
    else:
        _parent(target)
        Path(target).touch()
    kernel.perform([kernel.mounting(source, target, "", kernel.MS_BIND | kernel.MS_REC)])
    kept = _ATTRIBUTES if read_only else {"nosuid": _ATTRIBUTES["nosuid"]}
    attributes = b"".join(each.to_bytes(8, sys.byteorder) for each in (sum(kept.values()), 0, 0, 0))
    kernel.call("mount_setattr", _AT_FDCWD, target.encode(), _AT_RECURSIVE, attributes, len(attributes))


def _symlink(path: str, content: str) -> None:
    _parent(path)
    os.symlink(content, path)  # noqa: PTH211


def _parent(path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
