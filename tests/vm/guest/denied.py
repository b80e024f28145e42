"""Runs in a container as root with every capability, no seccomp filter and no masked path: only AppArmor is in the way.

Tries what a profile is there to deny, doing no harm where it is allowed (files are opened and not written to), and
prints one JSON object: attempt -> "ok" or the error.
"""

import ctypes
import errno
import json
import os
import shutil
import socket
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
NEWUSER = 0x10000000


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def opens(path, flags):
    return lambda: os.close(os.open(path, flags))


def mounts(kind, source=None, flags=0, target="/tmp/at"):
    def attempt():
        Path(target).mkdir(exist_ok=True)
        call(LIBC.mount((source or kind).encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None))
        LIBC.umount2(target.encode(), 2)

    return attempt


def seize():
    call(LIBC.ptrace(PTRACE_SEIZE, 1, None, None))
    LIBC.ptrace(PTRACE_DETACH, 1, None, None)


def execute_from_scratch():
    program = Path(shutil.copy("/usr/bin/python3", "/tmp/python"))
    program.chmod(0o755)
    in_fork(lambda: os.execv(program, [str(program), "-c", ""]))


def in_fork(action):
    """Run it in a child, whose exit status is the error."""
    if (pid := os.fork()) == 0:
        try:
            action()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise OSError(code, "")


ATTEMPTS = {
    "open /proc/sysrq-trigger to write": opens("/proc/sysrq-trigger", os.O_WRONLY),
    "open /proc/kcore to read": opens("/proc/kcore", os.O_RDONLY),
    "open /proc/sys/kernel/core_pattern to write": opens("/proc/sys/kernel/core_pattern", os.O_WRONLY),
    "open /proc/sys/vm/drop_caches to write": opens("/proc/sys/vm/drop_caches", os.O_WRONLY),
    "open /proc/irq/default_smp_affinity to write": opens("/proc/irq/default_smp_affinity", os.O_WRONLY),
    "open /sys/kernel/mm/ksm/run to write": opens("/sys/kernel/mm/ksm/run", os.O_WRONLY),
    "open /sys/power/state to write": opens("/sys/power/state", os.O_WRONLY),
    "trace a process of the host": seize,
    "signal a process of the host": lambda: os.kill(1, 0),
    "mount sysfs": mounts("sysfs"),
    "mount cgroup2": mounts("cgroup2"),
    "mount securityfs": mounts("securityfs"),
    "mount debugfs": mounts("debugfs"),
    "mount tmpfs on /usr": mounts("tmpfs", target="/usr"),
    "bind /proc/sys elsewhere": mounts("none", "/proc/sys", 4096),
    "make a file in /etc": opens("/etc/new", os.O_WRONLY | os.O_CREAT),
    "make a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(),
    "make an internet socket": lambda: socket.socket(socket.AF_INET).close(),
    "execute a file from /tmp": execute_from_scratch,
    "change root": lambda: in_fork(lambda: os.chroot("/tmp")),
    "set the host's clock": lambda: call(LIBC.settimeofday(None, bytes(8))),
    # These two the zygote needs.
    "make a user namespace": lambda: in_fork(lambda: call(LIBC.unshare(NEWUSER))),
    "mount tmpfs on /tmp": mounts("tmpfs", target="/tmp"),
}


def outcome(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "ok"


print(json.dumps({name: outcome(action) for name, action in ATTEMPTS.items()}))
