"""The system calls of a job: only those in the tables, none that the list below gives a reason against, and nothing that
the container's own filter would refuse anyway.
"""

import json
import mmap
import re
from pathlib import Path

import pytest
from runner import seccomp, syscalls
from runner.seccomp import Kept, Only, Without

ROOT = Path(__file__).parents[2]
MACHINES = ("x86_64", "aarch64")
PLAIN, WITH_PROGRAMS = seccomp.allowed(()), seccomp.allowed(["subprocess"])

#: By reason: calls that no option gives to a job.
NEVER = {
    "sees or changes another process": "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease "
    "pidfd_getfd kcmp rt_sigqueueinfo rt_tgsigqueueinfo move_pages migrate_pages",
    "slows or starves another process": "setpriority sched_setaffinity sched_setscheduler sched_setparam sched_setattr "
    "ioprio_set",
    "reaches the network or another's socket": "socket connect bind listen accept accept4 setsockopt sendmmsg recvmmsg",
    "starts a program that is no file": "execveat memfd_create memfd_secret uselib",
    "makes or enters namespaces": "unshare setns",
    "changes what is mounted": "mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick move_mount open_tree "
    "open_tree_attr mount_setattr swapon swapoff",
    "tells of mounts outside": "statmount listmount",
    "opens files by handle, past any path": "name_to_handle_at open_by_handle_at",
    "makes device files": "mknod mknodat",
    "changes the owner of files": "chown fchown lchown fchownat",
    "writes attributes that hold capabilities": "setxattr lsetxattr fsetxattr setxattrat removexattr",
    "changes its own rights": "setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset "
    "personality seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self lsm_set_self_attr",
    "hands the kernel a program": "bpf perf_event_open userfaultfd init_module finit_module delete_module kexec_load "
    "kexec_file_load",
    "does system calls on behalf of a caller, past a filter": "io_uring_setup io_uring_enter io_uring_register "
    "io_setup io_submit io_destroy io_cancel io_getevents",
    "holds memory that its limits do not count": "mlock mlockall mlock2 vmsplice splice tee remap_file_pages",
    "outlives its process": "shmget shmat shmctl semget semop semctl semtimedop msgget msgsnd msgrcv msgctl mq_open "
    "mq_unlink mq_timedsend mq_timedreceive mq_notify add_key request_key keyctl",
    "watches files that others use": "inotify_init inotify_init1 inotify_add_watch fanotify_init fanotify_mark",
    "changes the machine": "reboot settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname acct "
    "quotactl quotactl_fd syslog vhangup nfsservctl lookup_dcookie iopl ioperm modify_ldt _sysctl sysfs ustat",
    "makes the host write to its disks": "sync syncfs sync_file_range sync_file_range2",
    "hides its flags from a filter": "clone3 openat2",
    "tells which files others have read": "mincore cachestat",
}
#: Names of x86_64 that younger machines do not have: what they have instead is allowed as well.
INSTEAD = {
    "access": "faccessat", "alarm": "setitimer", "arch_prctl": "prctl", "chmod": "fchmodat", "creat": "openat",
    "dup2": "dup3", "epoll_create": "epoll_create1", "epoll_wait": "epoll_pwait", "eventfd": "eventfd2",
    "getpgrp": "getpgid", "link": "linkat", "lstat": "newfstatat", "mkdir": "mkdirat", "open": "openat",
    "pause": "ppoll", "pipe": "pipe2", "poll": "ppoll", "readlink": "readlinkat", "rename": "renameat2",
    "rmdir": "unlinkat", "select": "pselect6", "stat": "newfstatat", "symlink": "symlinkat", "time": "clock_gettime",
    "unlink": "unlinkat", "utime": "utimensat", "utimes": "utimensat", "vfork": "clone",
}  # fmt: skip


# ---- the tables ----


@pytest.mark.parametrize(
    ("machine", "known"),
    [
        ("x86_64", {"read": 0, "socket": 41, "clone": 56, "execve": 59, "prctl": 157, "unshare": 272, "prlimit64": 302,
                    "seccomp": 317, "statx": 332, "rseq": 334, "pidfd_send_signal": 424, "clone3": 435, "mseal": 462}),
        ("aarch64", {"io_setup": 0, "fcntl": 25, "ioctl": 29, "prctl": 167, "socket": 198, "clone": 220, "wait4": 260,
                     "prlimit64": 261, "seccomp": 277, "rseq": 293, "kexec_file_load": 294, "clone3": 435}),
    ],
)  # fmt: skip
def test_the_tables_have_the_kernels_numbers(machine, known):
    numbers = syscalls.numbers(machine)
    assert {name: numbers[name] for name in known} == known
    assert len(set(numbers.values())) == len(numbers)
    assert syscalls.names(machine) == {number: name for name, number in numbers.items()}
    assert max(numbers.values()) == syscalls.NEWEST


HEADERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), r"#define __NR_(\w+) (\d+)"),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"), r"#define __NR(?:3264)?_(\w+) (\d+)"),
}
#: The generic header calls these by other names; the kernel gives 64-bit machines the ones of the table.
RENAMED = {"fstatat": "newfstatat", "fadvise64": "fadvise64", "umount": "umount2"}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_tables_agree_with_the_headers_of_this_host(machine):
    header, pattern = HEADERS[machine]
    if not header.exists():
        pytest.skip("the kernel's headers are not installed")
    found = {RENAMED.get(name, name): int(number) for name, number in re.findall(pattern, header.read_text())}
    numbers = syscalls.numbers(machine)
    common = found.keys() & numbers.keys()
    assert len(common) > 250
    assert {name: numbers[name] for name in common} == {name: found[name] for name in common}


def test_a_machine_without_a_table_is_an_error():
    with pytest.raises(syscalls.UnknownArchitectureError, match=r"riscv64; there are x86_64, aarch64"):
        syscalls.numbers("riscv64")
    with pytest.raises(syscalls.UnknownArchitectureError):
        seccomp.job_filter(machine="i686")


# ---- what is allowed ----


@pytest.mark.parametrize("machine", MACHINES)
def test_each_name_that_is_allowed_is_in_the_table_or_has_a_younger_one_that_is(machine):
    numbers = syscalls.numbers(machine)
    missing = WITH_PROGRAMS.keys() - numbers.keys()
    assert missing == (set(INSTEAD) if machine == "aarch64" else set())
    for name in missing:
        assert INSTEAD[name] in numbers
        assert INSTEAD[name] in PLAIN


@pytest.mark.parametrize(("reason", "names"), NEVER.items(), ids=[reason.replace(" ", "-") for reason in NEVER])
def test_no_option_lets_a_job_call_what(reason, names):
    for name in names.split():
        assert any(name in syscalls.numbers(machine) for machine in MACHINES), f"{name} is misspelt"
        assert name not in WITH_PROGRAMS, f"{name} {reason}"


def test_the_option_subprocess_adds_two_calls_and_nothing_else():
    assert WITH_PROGRAMS.keys() - PLAIN.keys() == {"execve", "vfork"}
    assert WITH_PROGRAMS == PLAIN | {"execve": None, "vfork": None}
    assert seccomp.allowed(["proc"]) == PLAIN


@pytest.mark.parametrize("bit", [0x80, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x20000])
def test_no_flag_of_clone_makes_a_namespace(bit):
    rule = PLAIN["clone"]
    assert isinstance(rule, Without)
    assert rule.argument == 0
    assert rule.bits & bit


def test_the_flags_of_forks_and_threads_are_allowed():
    fork, thread = 0x01200011, 0x003D0F00  # as the C library has them
    assert not PLAIN["clone"].bits & (fork | thread)


def test_limits_are_the_callers_own_pairs_are_local_and_a_terminal_takes_no_bytes():
    assert PLAIN["prlimit64"].rule == Only(0, (0,))
    assert PLAIN["socketpair"] == Only(0, (1,))
    assert not {0x5412, 0x541C, 0x5423} & set(PLAIN["ioctl"].values)  # TIOCSTI, TIOCLINUX, TIOCSETD


def test_memory_is_the_jobs_own_and_no_huge_page_of_the_host():
    assert PLAIN["mmap"] == Without(3, 0x40000)
    mergeable, poisoned, offline = 12, 100, 101
    assert not {mergeable, poisoned, offline} & set(PLAIN["madvise"].values)
    assert {mmap.MADV_DONTNEED, mmap.MADV_FREE, mmap.MADV_HUGEPAGE, 102} <= set(PLAIN["madvise"].values)


def test_the_limit_of_core_dumps_stays_as_it_is():
    core = 4
    assert PLAIN["setrlimit"] == Kept(argument=0, value=core, other=1)
    assert PLAIN["prlimit64"][:3] == (1, core, 2)


@pytest.mark.parametrize("option", [4, 22, 24, 28, 36, 38, 47], ids=str)
def test_by_prctl_a_job_becomes_neither_dumpable_nor_a_reaper_nor_more_than_it_is(option):
    assert option not in PLAIN["prctl"].values


# ---- against the container's filter ----


class Outer:
    """seccomp/worker.json: what it allows of one call, whatever the arguments or with some of them."""

    def __init__(self):
        profile = json.loads((ROOT / "seccomp" / "worker.json").read_text())
        self.free, self.bound = set(), {}
        for rule in profile["syscalls"]:
            for name in rule["names"] if rule["action"] == "SCMP_ACT_ALLOW" else ():
                if rule.get("args"):
                    self.bound.setdefault(name, []).append(rule["args"])
                else:
                    self.free.add(name)

    def values(self, name):
        """(argument, values) of a call that is allowed with some values of one argument."""
        conditions = [only for (only,) in self.bound[name]]
        assert {each["op"] for each in conditions} == {"SCMP_CMP_EQ"}
        (argument,) = {each["index"] for each in conditions}
        return argument, {each["value"] for each in conditions}

    def bits(self, name):
        """(argument, bits) of a call that is allowed without some bits of one argument."""
        ((condition,),) = self.bound[name]
        assert (condition["op"], condition.get("valueTwo", 0)) == ("SCMP_CMP_MASKED_EQ", 0)
        return condition["index"], condition["value"]


OUTER = Outer()


def test_whatever_a_job_may_call_the_container_lets_it_call():
    assert WITH_PROGRAMS.keys() <= OUTER.free | OUTER.bound.keys()


@pytest.mark.parametrize("name", sorted(OUTER.bound.keys() & WITH_PROGRAMS.keys()))
def test_where_both_look_at_an_argument_the_job_gets_no_value_that_the_container_refuses(name):
    rule = WITH_PROGRAMS[name]
    rule = rule.rule if isinstance(rule, Kept) else rule
    if isinstance(rule, Only):
        argument, values = OUTER.values(name)
        assert rule.argument == argument
        assert set(rule.values) <= values
    else:
        assert isinstance(rule, Without), f"the container looks at an argument of {name}, the job's filter does not"
        argument, bits = OUTER.bits(name)
        assert rule.argument == argument
        assert not bits & ~rule.bits, f"{bits & ~rule.bits:#x} is refused outside and would not be told"


def test_where_only_the_jobs_filter_looks_at_an_argument_it_takes_away():
    only_inside = {name for name, rule in PLAIN.items() if rule is not None} - OUTER.bound.keys()
    assert only_inside == {
        "arch_prctl", "fadvise64", "fcntl", "fdatasync", "fsync", "getsockopt", "madvise", "membarrier", "mmap", "msync",
        "open", "openat", "preadv2", "setrlimit",
    }  # fmt: skip
    # owner, signal, owner again, lease, notices, hints of a file and of a descriptor, delegation
    assert not {8, 10, 15, 1024, 1026, 1036, 1038, 1040} & set(PLAIN["fcntl"].rule.values)


@pytest.mark.parametrize(("machine", "direct"), [("x86_64", 0o40000), ("aarch64", 0o200000)])
def test_no_read_goes_past_the_page_cache(machine, direct):
    rules = seccomp.allowed((), machine)
    assert rules["openat"] == Without(2, direct)
    assert rules["open"] == Without(1, direct)
    assert rules["fcntl"][:4] == (1, 4, 2, direct)


def test_the_disk_of_the_host_is_not_made_to_write_out_its_cache():
    assert PLAIN["fsync"] == PLAIN["fdatasync"] == seccomp.DONE
    assert PLAIN["msync"] == Without(2, 4, seccomp.DONE)


def test_there_is_no_answer_but_the_intended_ones():
    assert seccomp.DENY == 0x00050000 | 1
    assert seccomp.ABSENT == 0x00050000 | 38
    assert seccomp.DONE == 0x00050000
