"""Runs in a worker's container as a worker: takes the steps that give each job namespaces of its own, one by one.

Prints one JSON object: step -> "ok" or the error. A step that fails does not keep the next from being tried, so that
one run shows all that is missing. Raw system calls, because the C library has no wrapper for some and hides others.
"""

import ctypes
import errno
import json
import os
import signal
import struct
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUSER, NEWPID, NEWNET, NEWIPC = 0x20000, 0x10000000, 0x20000000, 0x40000000, 0x08000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
SYS_CAPSET, SYS_SECCOMP, SYS_LANDLOCK_CREATE, SYS_LANDLOCK_RESTRICT = 126, 317, 444, 446
SCRATCH = MS_NOSUID | MS_NODEV | MS_NOEXEC

seen = {}


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def step(name, action):
    try:
        action()
        seen[name] = "ok"
    except OSError as error:
        seen[name] = errno.errorcode.get(error.errno, str(error.errno))


def write(path, text):
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def mount(source, target, kind, flags, options=None):
    def text(value):
        return value.encode() if value is not None else None

    call(LIBC.mount(text(source), text(target), text(kind), ctypes.c_ulong(flags), text(options)))


def unshare(flags):
    call(LIBC.unshare(flags))


def drop_capabilities():
    header = struct.pack("Ii", 0x20080522, 0)
    call(LIBC.syscall(SYS_CAPSET, header, bytes(24)))


def restrict_files():
    """Landlock: an empty list of rules for one right, that to make a device."""
    rules = call(LIBC.syscall(SYS_LANDLOCK_CREATE, struct.pack("Q", 1 << 11), 8, 0))
    call(LIBC.syscall(SYS_LANDLOCK_RESTRICT, rules, 0))


def second_filter():
    """Seccomp: a program of one instruction that allows everything."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
    call(LIBC.syscall(SYS_SECCOMP, 1, 0, struct.pack("HxxxxxxP", 1, ctypes.addressof(program))))


def become_zygote():
    uid, gid = os.getuid(), os.getgid()
    step("unshare user namespace", lambda: unshare(NEWUSER))
    step("write setgroups", lambda: write("/proc/self/setgroups", "deny"))
    step("write uid_map", lambda: write("/proc/self/uid_map", f"{uid} {uid} 1"))
    step("write gid_map", lambda: write("/proc/self/gid_map", f"{gid} {gid} 1"))
    step("unshare pid and mount namespaces", lambda: unshare(NEWPID | NEWNS))


def in_first_process():
    step("make / private", lambda: mount(None, "/", None, MS_REC | MS_PRIVATE))
    own = os.open("/proc/self/ns/pid", os.O_RDONLY)
    step("unshare the job's pid namespace", lambda: unshare(NEWPID))
    in_fork(in_job)
    step("set back the own pid namespace", lambda: call(LIBC.setns(own, NEWPID)))


def in_job():
    step("unshare mount, ipc and net namespaces", lambda: unshare(NEWNS | NEWIPC | NEWNET))
    step("fresh tmpfs on /tmp", lambda: mount("tmpfs", "/tmp", "tmpfs", SCRATCH, "size=1m,mode=1777"))
    step("directory in it bound to /dev/shm", bind_shared_memory)
    step("write to both", lambda: [Path(place, "x").write_text("x") for place in ("/tmp", "/dev/shm")])
    step("other size for /tmp", lambda: mount(None, "/tmp", None, MS_REMOUNT | SCRATCH, "size=2m"))
    step("empty tmpfs on /run", lambda: mount("tmpfs", "/run", "tmpfs", SCRATCH | MS_RDONLY, "size=4k"))
    step("bound over /sys", lambda: mount("/run", "/sys", None, MS_BIND))
    step("bound over /proc", lambda: mount("/run", "/proc", None, MS_BIND))
    step("drop capabilities", drop_capabilities)
    step("Landlock", restrict_files)
    step("second seccomp filter", second_filter)
    try:
        mount("tmpfs", "/tmp", "tmpfs", SCRATCH)
        seen["a further mount is refused"] = "no: it was made"
    except OSError as error:
        seen["a further mount is refused"] = "ok" if error.errno == errno.EPERM else errno.errorcode[error.errno]


def bind_shared_memory():
    Path("/tmp/shm").mkdir()
    mount("/tmp/shm", "/dev/shm", None, MS_BIND)


def in_fork(action):
    """Run it in a child, and take over what it has seen."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            action()
            os.write(writing, json.dumps(seen).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        seen.update(json.loads(pipe.read() or b"{}"))
    os.waitpid(pid, 0)


signal.alarm(120)
become_zygote()
in_fork(in_first_process)
print(json.dumps(seen))
