"""Raw system calls, by number and with arguments that are wrong on purpose: what each comes to, and which layer refuses it.

`CALLS` are those that no job may make: all that the outer filter refuses (tests/docker/syscalls.py) and what it leaves
to the runner and the zygote. Where a call gets through nothing happens but another error, so that it can be tried on
the host too. `PROGRAM` makes them, each in a fork of its own, and answers {name: errno, "ok" or signal}.
"""

import json
from pathlib import Path

from runner import seccomp, syscalls

from tests.docker.syscalls import ALL, NOBODY, REFUSED

ROOT = Path(__file__).parents[2]

USER, PID, NET, IPC, MNT = 0x10000000, 0x20000000, 0x40000000, 0x08000000, 0x00020000
_F_SETOWN, _F_SETSIG, _F_SETLEASE, _F_NOTIFY = 8, 10, 1024, 1026
#: The runner and the zygote need these, a job does not.
_LEFT_BY_THE_OUTER = {
    "unshare_user": ("C1", 272, USER | 0x400), "unshare_pid": ("C1", 272, PID | 0x400),
    "unshare_mount": ("C1", 272, MNT | 0x400), "unshare_net": ("C1", 272, NET | 0x400),
    "unshare_ipc": ("C1", 272, IPC | 0x400), "unshare_nothing": ("C1", 272, 0),
    "clone_user_and_thread": ("C2", 56, USER | 0x10000), "clone_pid_and_parent": ("C2", 56, PID | 0x10000),
    "clone_mount_and_fs": ("C2", 56, MNT | 0x200), "clone_newtime": ("C2", 56, 0x80 | 0x10000),
    "setns_user": ("C3", 308, -1, USER), "setns_pid": ("C3", 308, -1, PID), "setns_mount": ("C3", 308, -1, MNT),
    "setns_ipc": ("C3", 308, -1, IPC), "setns_net": ("C3", 308, -1, NET),
    "mount": ("C4", 165, 0, 0, 0, 0, 0), "umount2": ("C4", 166, 0, ALL),
    "socket_unix": ("C36", 41, 1, 99, 0), "connect": ("C36", 42, -1, 0, 0), "bind": ("C36", 49, -1, 0, 0),
    "listen": ("C36", 50, -1, 0), "accept": ("C36", 43, -1, 0, 0), "accept4": ("C36", 288, -1, 0, 0, ALL),
    "setsockopt": ("C23", 54, -1, 0, 0, 0, 0),
    "capset": ("C29", 126, 0, 0), "execve": ("C38", 59, 0, 0, 0),
    "seccomp": ("C41", 317, 99, 0, 0), "landlock_create_ruleset": ("C41", 444, 1, 0, 0),
    "landlock_add_rule": ("C41", 445, -1, 0, 0, 0), "landlock_restrict_self": ("C41", 446, -1, 0),
    "personality_query": ("C21", 135, ALL),
    "prctl_dumpable": ("C6", 157, 4, 99, 0, 0, 0), "prctl_subreaper": ("D3", 157, 36, 0, 0, 0, 0),
    "prctl_no_new_privileges": ("C29", 157, 38, 99, 0, 0, 0), "prctl_ambient": ("C29", 157, 47, 99, 0, 0, 0),
    "prctl_bounding_set": ("C29", 157, 24, 99, 0, 0, 0), "prctl_secure_bits": ("C29", 157, 28, 0, 0, 0, 0),
    "sched_setscheduler": ("D16", 144, 0, 99, 0),
    "mmap_huge_pages": ("B18", 9, 0, 2 << 20, 3, 0x40022, -1, 0),
    "mmap_huge_pages_shared": ("B18", 9, 0, 2 << 20, 1, 0x40021, -1, 0),
    "madvise_mergeable": ("B18", 28, 0, 0, 12), "madvise_poison": ("B18", 28, 1, 0, 100),
    "madvise_offline": ("B18", 28, 1, 0, 101), "madvise_unknown": ("B18", 28, 1, 0, 26),
    "arch_prctl_tagged": ("C41", 158, 0x4002, 64), "arch_prctl_cpuid": ("C41", 158, 0x1012, 1),
    "arch_prctl_guest": ("C41", 158, 0x1025, 99), "arch_prctl_shadow_stack": ("C41", 158, 0x5002, 0),
    "fcntl_setown": ("C41", 72, -1, _F_SETOWN, 1), "fcntl_setsig": ("C41", 72, -1, _F_SETSIG, 9),
    "membarrier_global": ("C41", 324, 1, 0, 0), "membarrier_of_all": ("C41", 324, 2, 0, 0),
    "preadv2_nowait": ("C42", 327, -1, 0, 0, 0, 0, 8), "preadv2_dontcache": ("C42", 327, -1, 0, 0, 0, 0, 128),
    "fadvise_dontneed": ("C42", 221, -1, 0, 0, 4), "openat2": ("C42", 437, -1, 0, 0, 24),
    "open_direct": ("C42", 2, 0, 0x4000, 0), "openat_direct": ("C42", 257, -1, 0, 0x4000, 0),
    "fcntl_direct": ("C42", 72, -1, 4, 0x4000),
    "getsockopt_cookie": ("C23", 55, -1, 1, 57, 0, 0), "getsockopt_netns_cookie": ("C23", 55, -1, 1, 71, 0, 0),
    "getsockopt_peer_pidfd": ("C6", 55, -1, 1, 77, 0, 0),
    "fcntl_setlease": ("C41", 72, -1, _F_SETLEASE, 1), "fcntl_notify": ("C44", 72, -1, _F_NOTIFY, 1),
}  # fmt: skip
#: Refused by the outer filter too, and not in its table.
_MORE = {
    "rt_sigqueueinfo": ("C6", 129, NOBODY, 0, 0), "rt_tgsigqueueinfo": ("C6", 297, NOBODY, NOBODY, 0, 0),
    "tkill": ("C6", 200, NOBODY, 0), "process_vm_readv_self": ("C7", 310, -1, 0, 0, 0, 0, 0),
    "ioprio_set": ("D16", 251, 99, 0, 0), "readahead": ("C41", 187, -1, 0, 0), "mq_getsetattr": ("C43", 245, -1, 0, 0),
    "sendmmsg": ("C43", 307, -1, 0, 0, 0), "io_pgetevents": ("C14", 333, 0, 0, 0, 0, 0, 0),
    "pkey_alloc": ("C41", 330, ALL, 0), "map_shadow_stack": ("C41", 453, 0, 0, ALL), "mincore": ("C42", 27, 1, 1, 0),
    "rseq_unknown": ("C41", 999), "lsm_set_self_attr": ("C29", 460, 0, 0, 0, ALL), "setxattrat": ("C29", 463, -1, 0, ALL, 0, 0, 0),
}  # fmt: skip
_NUMBERED = {"setpriority": "D16", "sched_setaffinity": "D16", "nice_io": "D16", "sched_setparam": "D16"}

CALLS = {name: (_NUMBERED.get(name, entry), *rest) for name, (entry, *rest) in REFUSED.items()} | {
    **_LEFT_BY_THE_OUTER,
    **_MORE,
}
#: Newer than what the filters know, or listed so: they answer ENOSYS, and a library does it the old way.
ABSENT = {name for name, (_, number, *_) in CALLS.items() if number > syscalls.NEWEST} | {"clone3", "openat2"}

PROGRAM = """
import ctypes, errno, os, signal
LIBC = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    ctypes.set_errno(0)
    if LIBC.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in arguments)) != -1:
        return 0
    return ctypes.get_errno()

def in_fork(action, before):
    if (pid := os.fork()) == 0:
        code = 255
        try:
            before()
            code = action()
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0:
        return signal.Signals(-status).name
    return errno.errorcode.get(status, str(status)) if status else "ok"

def main(calls, before=lambda: None):
    return {name: in_fork(lambda rest=rest: call(*rest), before) for name, (_, *rest) in calls.items()}
"""

#: Defines `by_int_80`, which makes a call without arguments by the 32-bit table.
PAGE = """
import ctypes, mmap
def by_int_80(number):
    # mov eax, number; xor ebx, ebx; int 0x80; ret
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\\xb8" + number.to_bytes(4, "little") + b"\\x53\\x31\\xdb\\xcd\\x80\\x5b\\xc3")
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    return 0
"""

#: The same as PROGRAM, with the job's filter as the only thing between the call and the kernel.
FILTERED = PROGRAM.replace("def main(", "def _main(") + f"""
def main(calls):
    import sys
    sys.path[:0] = [{str(ROOT / "worker_image")!r}, {str(ROOT)!r}]
    from runner import kernel, seccomp
    def confine():
        kernel.forbid_new_privileges()
        kernel.Filter(seccomp.job_filter()).install()
    return _main(calls, confine)
"""  # fmt: skip


def names_of(number):
    return syscalls.names().get(number & 0x3FFFFFFF, "")


def outer_refuses(number, *arguments):
    """Whether the outer profile alone refuses this call."""
    name = names_of(number)
    given = [value & 0xFFFFFFFFFFFFFFFF for value in arguments] + [0] * 6
    for rule in json.loads((ROOT / "seccomp" / "worker.json").read_text())["syscalls"]:
        if name in rule["names"] and all(_holds(each, given) for each in rule.get("args") or ()):
            return rule["action"] != "SCMP_ACT_ALLOW"
    return True


def _holds(condition, given):
    value = given[condition["index"]]
    if condition["op"] == "SCMP_CMP_EQ":
        return value == condition["value"]
    assert condition["op"] == "SCMP_CMP_MASKED_EQ", condition
    return value & condition["value"] == condition.get("valueTwo", 0)


def inner_refuses(number, *arguments):
    """Whether the job's filter alone refuses this call."""
    rules = seccomp.allowed(())
    if names_of(number) not in rules:
        return True
    rule, given = rules[names_of(number)], [*arguments] + [0] * 6
    if isinstance(rule, seccomp.Kept):
        if given[rule.argument] == rule.value and given[rule.other] & rule.bits:
            return True
        rule = rule.rule
    if rule is None:
        return False
    value = given[rule.argument] & 0xFFFFFFFF
    if isinstance(rule, seccomp.Without):
        return bool(value & rule.bits)
    return value not in rule.values


def layers(entry_calls):
    """The filters of which each alone refuses every one of these calls."""
    alone = {"job filter": inner_refuses, "seccomp": outer_refuses}
    return [name for name, refuses in alone.items() if all(refuses(*rest) for _, *rest in entry_calls.values())]
