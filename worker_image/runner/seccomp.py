"""The second seccomp filter: the system calls that a job may make, on top of the container's own filter.

Allowed is what a program needs to compute: memory, its own threads and processes, its files, pipes and clocks. Not
allowed, though the container allows it, is every call by which a job could reach out or regain what it gave up:
sockets (except pairs), programs, namespaces, mounts, filters, capabilities, other processes' scheduling. A call that is
not named here is refused.

The filter is classic BPF, as linux/{filter,seccomp}.h define it:

    load arch ─▶ native? ──no──▶ kill          the same number means another call on another architecture
        │
    load nr ─▶ binary search over ranges of numbers ─▶ allow | deny | absent | look at one argument ─▶ allow | deny

The kernel runs a filter once for every number when it is loaded, and a job waits for that. Hence the search tree
instead of a list of comparisons.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from runner import syscalls

ALLOW = 0x7FFF0000
KILL = 0x80000000
TRAP = 0x00030000
_ERRNO = 0x00050000

_LOAD, _JUMP, _EQUAL, _AT_LEAST, _SET, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_FARTHEST = 255  # a conditional jump has eight bits
_LAYOUT = struct.Struct("=HBBI")

Instruction = tuple[int, int, int, int]


def fail(number: int) -> int:
    """The action that makes a call fail with this errno."""
    return _ERRNO | number


DENY = fail(errno.EPERM)
ABSENT = fail(errno.ENOSYS)
#: The call succeeds, and the kernel does nothing.
DONE = fail(0)


class Only(NamedTuple):
    """Allowed with these values of one argument. The kernel takes all of these as 32 bits, and so do we."""

    argument: int
    values: tuple[int, ...]


class Without(NamedTuple):
    """Allowed with none of these bits in one argument. With one it gets the action `otherwise`, or is denied."""

    argument: int
    bits: int
    otherwise: int = 0


class Kept(NamedTuple):
    """As the rule says, but a call with this value of one argument has none of these bits in another one. All bits: it
    only reads, since its pointer to a new setting is null.
    """

    argument: int
    value: int
    other: int
    bits: int = 0xFFFFFFFFFFFFFFFF
    rule: Only | None = None


#: None: any arguments. A number: the action for each call.
Rule = Only | Without | Kept | int | None


def compile_filter(allowed: Mapping[int, Rule], *, arch: int, newest: int, absent: Sequence[int], denied: int) -> bytes:
    """The program for the kernel. `allowed`: rule by number. `absent` and all numbers above `newest` fail with ENOSYS,
    everything else gets the action `denied`.
    """
    steps: list[tuple[int, Rule]] = []
    for number in range(newest + 1):
        action: Rule = denied
        if number in absent:
            action = ABSENT
        elif number in allowed:
            action = allowed[number] or ALLOW
        if not steps or steps[-1][1] is not action:  # tuples of two kinds may be equal
            steps.append((number, action))
    steps.append((newest + 1, ABSENT))
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NUMBER),
        *_search(steps, denied),
    ]
    return b"".join(_LAYOUT.pack(*each) for each in program)


def _search(steps: Sequence[tuple[int, Rule]], denied: int) -> list[Instruction]:
    """The action for a number, given the first number of each step."""
    if len(steps) == 1:
        return _leaf(steps[0][1], denied)
    middle = len(steps) // 2
    below, above = _search(steps[:middle], denied), _search(steps[middle:], denied)
    first = steps[middle][0]
    if len(below) <= _FARTHEST:
        return [(_AT_LEAST, len(below), 0, first), *below, *above]
    return [(_AT_LEAST, 0, 1, first), (_JUMP, 0, 0, len(below)), *below, *above]


def _leaf(action: Rule, denied: int) -> list[Instruction]:
    if isinstance(action, int):
        return [(_RETURN, 0, 0, action)]
    if action is None:
        return [(_RETURN, 0, 0, ALLOW)]
    load = (_LOAD, 0, 0, _ARGUMENTS + 8 * action.argument)  # its low half: every architecture here is little endian
    if isinstance(action, Kept):
        low = _ARGUMENTS + 8 * action.other
        below, above = action.bits & 0xFFFFFFFF, action.bits >> 32
        none = [(_LOAD, 0, 0, low), (_SET, 2, 0, below), (_LOAD, 0, 0, low + 4), (_SET, 0, 1, above)]
        return [load, (_EQUAL, 0, 5, action.value), *none, (_RETURN, 0, 0, denied), *_leaf(action.rule, denied)]
    if isinstance(action, Without):
        return [load, (_SET, 0, 1, action.bits), (_RETURN, 0, 0, action.otherwise or denied), (_RETURN, 0, 0, ALLOW)]
    tests = [(_EQUAL, len(action.values) - at, 0, value) for at, value in enumerate(action.values)]
    return [load, *tests, (_RETURN, 0, 0, denied), (_RETURN, 0, 0, ALLOW)]


# ---- what a job may do ----

SUBPROCESS = "subprocess"

_ANY = """
brk close_range exit exit_group futex futex_requeue futex_wait futex_waitv futex_wake get_robust_list getcpu getegid
geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage
getsid gettid getuid kill mprotect mremap munmap pause pidfd_open pidfd_send_signal
restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getparam sched_getscheduler
sched_rr_get_interval sched_yield set_robust_list set_tid_address setpgid setrlimit setsid sigaltstack sysinfo tgkill
times umask uname wait4 waitid capget

alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time timerfd_create
timerfd_gettime timerfd_settime

access chdir chmod close copy_file_range creat dup dup2 dup3 faccessat faccessat2 fallocate fchdir fchmod
fchmodat fchmodat2 fgetxattr flistxattr flock fstat fstatfs ftruncate getcwd getdents64 getxattr
lgetxattr link linkat listxattr llistxattr lseek lstat mkdir mkdirat newfstatat pipe pipe2 pread64
preadv pwrite64 pwritev pwritev2 read readlink readlinkat readv rename renameat renameat2 rmdir sendfile stat
statfs statx symlink symlinkat truncate unlink unlinkat utime utimensat utimes write writev

epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 poll ppoll pselect6 select

getpeername getsockname recvfrom recvmsg sendmsg sendto shutdown
"""
#: Only with the option `subprocess`: start another program, which gets the same filter.
_PROGRAMS = "execve vfork"

_AF_UNIX = 1
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW*: cgroup, uts, ipc, user, pid, net, ns, time
#: CLONE_PTRACE and CLONE_PARENT: they would make a child of the zygote that it does not know of and never reaps.
_OF_ANOTHER = 0xA000
#: CLONE_UNTRACED and CLONE_IO: the container's filter refuses them too, but only this one reports it.
_REFUSED_OUTSIDE = 0x80800000
#: TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. None of them writes to a terminal.
_IOCTLS = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
#: PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ,
#: PR_GET_NO_NEW_PRIVS, PR_SET_VMA. Not among them: becoming dumpable or a reaper, and loading a filter.
_PRCTLS = (1, 2, 3, 15, 16, 21, 23, 39, 0x53564D41)
#: Copies, flags, locks, owner, signal and lease (to read), pipe sizes, seals. Not among them: what has signals
#: sent, delays who opens a file (leases, delegations), or is kept with a file that others open (hints for writing).
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 16, 36, 37, 38, 1025, 1027, 1028, 1030, 1031, 1032, 1033, 1034)
#: RLIMIT_CORE. A core_pattern that is a pipe ignores every value but 1, so with 0 a program that a job starts would
#: have the host run the helper that takes its core.
_CORE = 4

#: MAP_HUGETLB: pages that the host has set aside for another program. No limit of memory counts them.
_MAP_HUGETLB = 0x40000
#: All that is about the caller's own memory. Not among them: MADV_MERGEABLE, which has a thread of the kernel look for
#: equal pages, in nobody's CPU time, and MADV_HWPOISON and MADV_SOFT_OFFLINE, which take memory from the host.
_ADVICES = (0, 1, 2, 3, 4, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 102, 103)
#: ARCH_SET_GS, ARCH_SET_FS, ARCH_GET_FS, ARCH_GET_GS, ARCH_GET_CPUID, ARCH_GET_XCOMP_SUPP, ARCH_GET_XCOMP_PERM,
#: ARCH_REQ_XCOMP_PERM. Not among them: what changes the layout of addresses, the stack's shadow or what CPUID says.
_ARCH_PRCTLS = (0x1001, 0x1002, 0x1003, 0x1004, 0x1011, 0x1021, 0x1022, 0x1023)
# Files of the image and data sets are on the disks of the host, and their pages are in the cache for all workers. A job
# reads them. It neither finds out what others have read, nor has pages dropped, nor keeps the disk busy with them.
#: To find it out: RWF_NOWAIT, and openat2() with RESOLVE_CACHED, which is in memory. RWF_DONTCACHE drops pages.
_READS = (0,)
#: All but POSIX_FADV_DONTNEED, which drops pages.
_FILE_ADVICES = (0, 1, 2, 3, 5)
#: Reads that go to the disk each time.
_O_DIRECT = {"aarch64": 0o200000}
_F_SETFL = 4
#: fsync() of a file that is open for reading has the disk write out its cache, which others then wait for. The scratch
#: space is memory, where it does nothing.
_MS_SYNC = 4

#: Options of a socket that are about it alone. Not among them: its cookie, a count of the kernel that goes on from job
#: to job, and the pidfd of the process at its other end.
_SOCKET_OPTIONS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 15, 16, 17, 18, 19, 20, 21, 30, 34, 36, 38, 39, 42)
#: Queries, and barriers among the caller's threads. Not among them: barriers that interrupt all processors.
_BARRIERS = (0, 8, 16, 32, 64, 128, 256, 512)


def _with_rule(machine: str) -> dict[str, Rule]:
    direct = _O_DIRECT.get(machine or os.uname().machine, 0o40000)
    return {
        "arch_prctl": Only(0, _ARCH_PRCTLS),
        "clone": Without(0, _NEW_NAMESPACES | _OF_ANOTHER | _REFUSED_OUTSIDE),
        "fadvise64": Only(3, _FILE_ADVICES),
        "fcntl": Kept(1, _F_SETFL, 2, direct, rule=Only(1, _FCNTLS)),
        "fdatasync": DONE,
        "fsync": DONE,
        "getsockopt": Only(2, _SOCKET_OPTIONS),
        "ioctl": Only(1, _IOCTLS),
        "madvise": Only(2, _ADVICES),
        "membarrier": Only(0, _BARRIERS),
        "mmap": Without(3, _MAP_HUGETLB),
        "msync": Without(2, _MS_SYNC, DONE),
        "open": Without(1, direct),
        "openat": Without(2, direct),
        "preadv2": Only(5, _READS),
        "prctl": Only(0, _PRCTLS),
        "prlimit64": Kept(1, _CORE, 2, rule=Only(0, (0,))),  # its own
        "setrlimit": Kept(0, _CORE, 1),
        "socketpair": Only(0, (_AF_UNIX,)),
    }


#: Fail with ENOSYS, so that libraries fall back to clone and openat, whose flags a filter can look at.
_ABSENT = ("clone3", "openat2")


def allowed(options: Collection[str], machine: str = "") -> dict[str, Rule]:
    """Rule by name."""
    names = _ANY.split() + (_PROGRAMS.split() if SUBPROCESS in options else [])
    return {**dict.fromkeys(names), **_with_rule(machine)}


def job_filter(options: Collection[str] = (), *, explain: bool = False, machine: str = "") -> bytes:
    """The filter for this machine. `explain`: a refused call raises SIGSYS, so that denials.py can report it."""
    numbers = syscalls.numbers(machine)
    return compile_filter(
        {numbers[name]: rule for name, rule in allowed(options, machine).items() if name in numbers},
        arch=syscalls.audit_arch(machine),
        newest=syscalls.NEWEST,
        absent=[numbers[name] for name in _ABSENT],
        denied=TRAP if explain else DENY,
    )
