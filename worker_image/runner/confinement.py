"""What keeps a job away from the worker and from other jobs: namespaces, mounts, Landlock and a second seccomp filter.

    zygote  in a user, a pid and a net namespace of its own; covers /run and /sys once, for all children
       └─ for each child: a pid namespace with an init ──fork──▶ child
    child   isolating: user, mount and ipc namespace; own /tmp, /dev/shm and /proc; then it parks
            sealing, once it has its job: size of /tmp, capabilities, Landlock, second filter; then it runs the code

The zygote prepares everything that a child does here, as far as possible. Most of the price of a child is the pages
that it has to copy because it writes to them; objects that were made before the fork need not be copied.

The net namespace has nothing in it but a loopback device that is down. Jobs of one worker run one after the other, and
their sockets, abstract names included, are gone with their processes; so the next job finds it empty. Only jobs that
see /proc, where a net namespace lists its sockets, get one each: the zygote's has the sockets of the next child in it.

The zygote may make pid namespaces because it has its own user namespace. None of this needs a right on the host. A part
that the host refuses is left out, and `Grant.missing` names it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from runner import job_mounts, kernel, seccomp
from runner.call_table import CallTable
from runner.isolation import BARE, DATA_LIMIT, NAMESPACES, Grant
from runner.job_mounts import JobMounts
from runner.kernel import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, Filter, Step

PROC = "proc"
#: Soft and hard limits: CPU in seconds, memory and the size of a file in bytes, processes.
LIMITS = struct.Struct("=8Q")
_OOM = "/proc/self/oom_score_adj"
#: Processes and threads of the runner, the zygote and the next child, where a job shares their user namespace.
_OF_THE_WORKER = 8
_STACK_BYTES = 16384
_CLONE_VM = 0x00000100
#: What a job may read where it has no mounts of its own.
_READABLE = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/etc",
    "/opt/pool",
    "/datasets",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
)


class Init:
    """Makes the process 1 of a pid namespace. It only pauses; when it is killed, the whole namespace is.

    It shares the memory of its maker, so that no page tables are copied, and it never runs Python: its only code is
    libc's pause(). As process 1 it cannot be signalled from inside the namespace.
    """

    def __init__(self) -> None:
        stack = kernel.map_room(_STACK_BYTES)
        kernel.advise(stack, _STACK_BYTES, mmap.MADV_DONTFORK)  # so that a fork copies nothing of it
        self._top = ctypes.c_void_p(stack + _STACK_BYTES - 64)  # aligned, with room for what clone() puts there
        self._pause = ctypes.cast(kernel.libc.pause, ctypes.c_void_p)
        self._every_signal = ctypes.create_string_buffer(b"\xff" * kernel.SIGSET_BYTES, kernel.SIGSET_BYTES)
        self._mask = kernel.room(bytes(kernel.SIGSET_BYTES))

    def spawning(self, pid: ctypes.c_int) -> list[Step]:
        """Steps. All inits of one maker share a small stack, since none of them ever returns to it.

        It is private memory. A job that could write to it would choose what the next init runs, as it shares the memory
        of its maker.

        It starts with every signal blocked, so that it runs none of the maker's handlers and nothing ends its pause.
        """
        return [
            Step(kernel.libc.sigprocmask, (int(signal.SIG_BLOCK), self._every_signal, self._mask), "sigprocmask"),
            Step(kernel.libc.clone, (self._pause, self._top, _CLONE_VM | signal.SIGCHLD, None), "clone", pid),
            Step(kernel.libc.sigprocmask, (int(signal.SIG_SETMASK), self._mask, None), "sigprocmask"),
        ]


class PidNamespaces:
    """Steps of the zygote: a pid namespace for each child, with an init whose end ends the whole namespace."""

    def __init__(self) -> None:
        kernel.set_dumpable(True)  # otherwise /proc/self does not belong to this process
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        kernel.set_dumpable(False)
        self._inits = Init()
        self.making = kernel.unsharing(CLONE_NEWPID)  #: for what is forked next
        self.leaving = kernel.entering(self._own, CLONE_NEWPID)  #: fork into the zygote's own namespace again

    def making_init(self, pid: ctypes.c_int) -> list[Step]:
        """Three steps, of which the second one makes it."""
        return self._inits.spawning(pid)

    def leave(self) -> None:
        kernel.perform([self.leaving])


class _Sealing(dict[bool, CallTable]):
    """The table of the usual jobs is prepared. A child whose job explains what is denied makes the other one."""

    def __init__(self, make: Callable[[bool], CallTable]) -> None:
        super().__init__({False: make(False)})
        self._make = make

    def __missing__(self, explain: bool) -> CallTable:  # noqa: FBT001
        return self._make(explain)


class Confinement:
    """Made once by the zygote, after it has loaded; used by each child."""

    def __init__(self, grant: Grant, options: Collection[str], *, tmp_bytes: int, tmp_inodes: int) -> None:
        self.grant = grant
        self.nested = "user" in grant.parts  #: whether children have pid and user namespaces of their own
        self.own_scratch = "mount" in grant.parts  #: whether each child has a /tmp that is gone when the child is gone
        self.programs = seccomp.SUBPROCESS in options  #: whether a job may start programs
        data_limit = DATA_LIMIT in grant.parts or grant is BARE
        #: The one that this kernel enforces.
        self.memory_limit = resource.RLIMIT_DATA if data_limit else resource.RLIMIT_AS
        #: RLIMIT_NPROC counts by user and user namespace: only the job's processes where a child has its own, otherwise
        #: these too. None: it is not set.
        self.other_processes = 0 if self.nested else None if grant is BARE else _OF_THE_WORKER
        self.tmp_bytes = tmp_bytes
        own = grant.parts if PROC in options else grant.parts - {"net"}
        flags = sum(flag for part, flag in NAMESPACES.items() if part in own)
        unsharing = [kernel.unsharing(CLONE_NEWUSER | flags)] if self.nested else []
        leaving = [kernel.leaving_session(), kernel.unblocking_signals(), *unsharing]
        #: When the worker runs out of memory, the child is killed first. setgroups() stays denied, as for the zygote.
        oom = [(_OOM, b"1000")] if Path(_OOM).exists() else []
        own_files = kernel.writing_own([*oom, *(kernel.identity_maps() if self.nested else [])])
        self._mounts = JobMounts(tmp_bytes, tmp_inodes, own_proc=PROC in options, own_maps=job_mounts.reads_maps())
        rules = self._ruleset(kernel.landlock_abi()) if "landlock" in grant.parts else None
        mounting = self._mounts.steps if self.own_scratch else ()
        # New credentials clear that it dies with the zygote. If the zygote has died before, the worker ends.
        last = [kernel.setting_umask(0o077), kernel.dying_with_parent()]
        #: Everything that needs a right which `sealing` gives up. After this /proc shows only its own descriptors.
        self.isolating: list[Step] = [*leaving, *own_files, *mounting, *(rules.making if rules else ()), *last]
        dropping = [kernel.dropping_capabilities()] if self.nested else []
        dropping += rules.applying if rules else []
        self.limits = kernel.room(bytes(LIMITS.size))  #: of the job, for `sealing`
        dropping = [*self._limiting(), *dropping]
        #: Sets the limits and gives up every right. After this only code of the job runs. By whether the job explains
        #: what is denied.
        self.sealing: dict[bool, CallTable] = _Sealing(
            lambda explain: CallTable([*dropping, *_filtering(grant, options, explain=explain)])
        )

    def _limiting(self) -> Iterator[Step]:
        kinds = (resource.RLIMIT_CPU, self.memory_limit, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC)
        size = LIMITS.size // len(kinds)
        for number, kind in enumerate(kinds if self.other_processes is not None else kinds[:-1]):
            place = (ctypes.c_char * size).from_buffer(self.limits, number * size)
            yield Step(kernel.libc.setrlimit, (kind, place), "setrlimit")

    def cover(self) -> None:
        """Called by the zygote: hide what none of its children may see."""
        if "net" in self.grant.parts:
            kernel.unshare(CLONE_NEWNET)
        if self.own_scratch:
            kernel.unshare(CLONE_NEWNS)
            job_mounts.cover()

    def resize(self, tmp_bytes: int) -> None:
        """Of a child whose job asks for another size of its scratch space. Before it is sealed."""
        if self.own_scratch:
            self._mounts.resize(tmp_bytes)

    def _ruleset(self, abi: int) -> Ruleset:
        """A rule costs each job 25 us. So there is one rule for the whole image where mounts hide the rest."""
        read = RUN if self.programs else READ
        rights = dict.fromkeys(("/",) if self.own_scratch else _READABLE, read)
        writable = dict.fromkeys(("/tmp", "/dev/shm"), WRITE)  # noqa: S108
        return Ruleset(abi, {**rights, "/dev/null": DEVICE, **writable})


def _filtering(grant: Grant, options: Collection[str], *, explain: bool) -> list[Step]:
    return [Filter(seccomp.job_filter(options, explain=explain)).installing] if "seccomp" in grant.parts else []


# ---- Landlock: what a job may reach by path, and whom by signal or abstract socket ----
# Source: the kernel's Documentation/userspace-api/landlock.rst. Rights that the running kernel does not know are left
# out of what is handled, so that the other rules still hold.

_PATH_BENEATH = 1
#: Rights, and a descriptor of 32 bits, of which the upper half of this one is behind the rule.
_RULE, _RULE_FD = struct.Struct("=Qq"), 8

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE = 1 << 14
_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}  # by ABI; IOCTL_DEV since 5
_ALL_SINCE_5 = (1 << 16) - 1
#: Making device files is allowed nowhere.
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_NET_ABI, _NET = 4, 0b11  # bind and connect of TCP
_SCOPE_ABI, _SCOPE = 6, 0b11  # abstract sockets and signals

READ = _READ_FILE | _READ_DIR
RUN = READ | _EXECUTE
DEVICE = _READ_FILE | _WRITE_FILE
WRITE = _ALL_SINCE_5 & ~(_EXECUTE | _MAKE_CHAR | _MAKE_BLOCK)
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE


class Ruleset:
    """Prepared once. Each child makes it while it can still open the paths, and applies it at the end."""

    def __init__(self, abi: int, allowed: Mapping[str, int]) -> None:
        """`allowed`: rights by path, for a directory and all below it or for one file. Missing paths are skipped."""
        handled = _ALL.get(abi, _ALL_SINCE_5)
        net = _NET if abi >= _NET_ABI else 0
        scope = _SCOPE if abi >= _SCOPE_ABI else 0
        attributes = struct.pack("=QQQ", handled, net, scope)
        fd = kernel.number()
        self.making = [
            kernel.calling("landlock_create_ruleset", attributes, 24 if scope else 16 if net else 8, 0, result=fd)
        ]
        for path, rights in allowed.items():
            if Path(path).exists():
                self.making += _adding(fd, path, rights & handled & (-1 if Path(path).is_dir() else _OF_FILES))
        #: To this thread and all that it starts. It cannot be undone.
        self.applying = [kernel.calling("landlock_restrict_self", fd, 0), kernel.closing(fd)]


def _adding(ruleset: ctypes.c_long, path: str, rights: int) -> list[Step]:
    rule = kernel.room(_RULE.pack(rights, 0))
    fd = ctypes.c_long.from_buffer(rule, _RULE_FD)
    return [
        kernel.opening(path, os.O_PATH, fd),
        kernel.calling("landlock_add_rule", ruleset, _PATH_BENEATH, rule, 0),
        kernel.closing(fd),
    ]
