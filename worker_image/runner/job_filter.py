"""The system calls that a job may make: the second filter, on top of the container's own.

What is left is what a program needs that computes: memory, threads and processes of its own, its files, pipes, clocks.
What is gone, against the container's list, is everything by which it could reach out or take back what it gave up:
sockets (but for pairs), programs, namespaces, mounts, filters, capabilities, other processes' scheduling. A name that
is not here is refused.
"""

from __future__ import annotations

from collections.abc import Collection

from runner import bpf, syscalls
from runner.bpf import Except, Only, Rule, Without

SUBPROCESS = "subprocess"

_ANY = """
brk close_range exit exit_group futex futex_requeue futex_wait futex_waitv futex_wake get_robust_list getcpu getegid
geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage
getsid gettid getuid kill madvise membarrier mmap mprotect mremap msync munmap pause pidfd_open pidfd_send_signal
restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getparam sched_getscheduler
sched_rr_get_interval sched_yield set_robust_list set_tid_address setpgid setrlimit setsid sigaltstack sysinfo tgkill
times umask uname wait4 waitid arch_prctl capget

alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time timerfd_create
timerfd_gettime timerfd_settime

access chdir chmod close copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fallocate fchdir fchmod
fchmodat fchmodat2 fdatasync fgetxattr flistxattr flock fstat fstatfs fsync ftruncate getcwd getdents64 getxattr
lgetxattr link linkat listxattr llistxattr lseek lstat mkdir mkdirat newfstatat open openat openat2 pipe pipe2 pread64
preadv preadv2 pwrite64 pwritev pwritev2 read readlink readlinkat readv rename renameat renameat2 rmdir sendfile stat
statfs statx symlink symlinkat truncate unlink unlinkat utime utimensat utimes write writev

epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 poll ppoll pselect6 select

getpeername getsockname getsockopt recvfrom recvmsg sendmsg sendto shutdown
"""
#: Only with the option `subprocess`: start another program, which is bound by the same filter.
_PROGRAMS = "execve vfork"

_AF_UNIX = 1
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW*: cgroup, uts, ipc, user, pid, net, ns, time
#: CLONE_PTRACE and CLONE_PARENT: a child of the zygote's would be one that it does not know of, and never reaps.
_OF_ANOTHER = 0xA000
#: CLONE_UNTRACED and CLONE_IO: the container's filter refuses them, and what is refused here is told.
_REFUSED_OUTSIDE = 0x80800000
#: TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. None of them puts a byte into a terminal.
_IOCTLS = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
#: PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ,
#: PR_GET_NO_NEW_PRIVS, PR_SET_VMA. Not among them: to become dumpable, or a reaper, or to get a filter.
_PRCTLS = (1, 2, 3, 15, 16, 21, 23, 39, 0x53564D41)
#: F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY: ways to have signals sent, or to hold up who opens a file.
_FCNTLS = (8, 10, 15, 1024, 1026)

_WITH_RULE: dict[str, Rule] = {
    "clone": Without(0, _NEW_NAMESPACES | _OF_ANOTHER | _REFUSED_OUTSIDE),
    "fcntl": Except(1, _FCNTLS),
    "ioctl": Only(1, _IOCTLS),
    "prctl": Only(0, _PRCTLS),
    "prlimit64": Only(0, (0,)),  # its own
    "socketpair": Only(0, (_AF_UNIX,)),
}
#: Not there, so that the C library falls back to clone, whose flags can be looked at.
_ABSENT = ("clone3",)


def allowed(options: Collection[str]) -> dict[str, Rule]:
    """Rule by name, None for any arguments."""
    names = _ANY.split() + (_PROGRAMS.split() if SUBPROCESS in options else [])
    return {**dict.fromkeys(names), **_WITH_RULE}


def program(options: Collection[str] = (), *, explain: bool = False, machine: str = "") -> bytes:
    """The filter for this machine. `explain`: what is refused raises SIGSYS first, so that it can be told."""
    numbers = syscalls.numbers(machine)
    return bpf.compile_filter(
        {numbers[name]: rule for name, rule in allowed(options).items() if name in numbers},
        arch=syscalls.audit_arch(machine),
        newest=syscalls.NEWEST,
        absent=[numbers[name] for name in _ABSENT],
        denied=bpf.TRAP if explain else bpf.DENY,
    )
