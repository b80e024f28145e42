"""Runs inside a locked-down container: tries what is not allowed and prints the results as one JSON object."""

import ctypes
import errno
import json
import os
import platform
import resource
import shutil
import threading
import time
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)

#: Numbers on x86_64: what is denied has no wrapper in the C library, or one that hides the error.
DENIED = {
    "ptrace": (101, 0), "process_vm_readv": (310, 1), "kcmp": (312, 1), "bpf": (321, 0), "perf_event_open": (298, 0),
    "userfaultfd": (323, 0), "io_uring_setup": (425, 1), "keyctl": (250, 0), "add_key": (248, 0), "mq_open": (240, 0),
    "shmget": (29, 0, 4096), "semget": (64, 0, 1), "msgget": (68, 0), "memfd_create": (319, 0), "init_module": (175, 0),
    "kexec_load": (246, 0), "open_by_handle_at": (304, 0), "name_to_handle_at": (303, 0), "pivot_root": (155, 0),
    "chroot": (161, 0), "inotify_init1": (294, 0), "mlockall": (151, 1), "setuid": (105, 0), "swapon": (167, 0),
    "reboot": (169, 0), "syslog": (103, 0), "fsopen": (430, 0), "move_mount": (429, 0), "quotactl": (179, 0),
    "personality": (135, 0x0040000), "prlimit_of_another": (302, 2, 7), "ioctl_sti": (16, 0, 0x5412),
    "socket_inet": (41, 2, 1, 0), "socket_inet6": (41, 10, 1, 0), "socket_netlink": (41, 16, 3, 0),
    "socket_packet": (41, 17, 3, 0), "socket_vsock": (41, 40, 1, 0), "socket_alg": (41, 38, 5, 0),
    "socket_socketpair_inet": (53, 2, 1, 0), "clone3": (435, 0, 0),
}  # fmt: skip


#: Filled in by the test, with what lockdown.py names.
MASKED = ()


def call(number, *arguments):
    ctypes.set_errno(0)
    if LIBC.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in arguments)) >= 0:
        return "ok"
    return errno.errorcode[ctypes.get_errno()]


def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"


def in_child(action):
    """Run it in a fork; "ok", "killed", or the code it left with."""
    if (pid := os.fork()) == 0:
        try:
            os._exit(action() or 0)
        finally:
            os._exit(99)
    status = os.waitpid(pid, 0)[1]
    return "killed" if os.WIFSIGNALED(status) else "ok" if status == 0 else str(os.waitstatus_to_exitcode(status))


def lines(path):
    return Path(path).read_text().splitlines()


def status_of_threads():
    stop = threading.Event()
    extra = threading.Thread(target=stop.wait)
    extra.start()
    found = [
        dict(line.split(":\t", 1) for line in lines(task / "status")) for task in Path("/proc/self/task").iterdir()
    ]
    stop.set()
    extra.join()
    wanted = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    return [{name: status[name] for name in wanted} for status in found]


def mounts():
    found = {}
    for line in lines("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields = before.split()
        found[fields[4]] = {"options": fields[5].split(","), "propagation": fields[6:], "type": after.split()[0]}
    return found


def create(path):
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def writes():
    new = ("/x", "/etc/x", "/usr/bin/x", "/opt/pool/x", "/run/pool/x")
    found = {path: attempt(lambda path=path: create(path)) for path in new}
    for path in ("/etc/passwd", "/etc/hosts"):
        found[path] = attempt(lambda path=path: Path(path).open("a").close())
    return found


def writable():
    found = []
    for directory, names, _ in os.walk("/"):
        if directory == "/":
            names.remove("proc")  # a process may write to its own entries there
        if os.access(directory, os.W_OK):
            found.append(directory)
    return sorted(found)


def fill(place):
    found = {"mode": oct(Path(place).stat().st_mode), "written": 0, "files": 0}
    big = Path(place, "big")
    try:
        with big.open("wb", buffering=0) as file:
            while True:
                found["written"] += file.write(b"x" * 65536)
    except OSError as error:
        found["full"] = errno.errorcode[error.errno]
    big.unlink()
    try:
        while True:
            create(f"{place}/{found['files']}")
            found["files"] += 1
    except OSError as error:
        found["too_many"] = errno.errorcode[error.errno]
    for number in range(found["files"]):
        Path(place, str(number)).unlink()
    program = Path(shutil.copy("/usr/bin/python3", f"{place}/python"))
    program.chmod(0o755)
    found["execute"] = attempt(lambda: os.execv(program, [program, "-c", "print('ran')"]))
    program.unlink()
    return found


def cgroup_number(*candidates):
    for candidate in candidates:
        path = Path("/sys/fs/cgroup", candidate)
        if path.exists():
            return int(path.read_text())
    return None


def swap_limit():
    if (both := cgroup_number("memory/memory.memsw.limit_in_bytes")) is not None:
        return both - cgroup_number("memory/memory.limit_in_bytes")
    return cgroup_number("memory.swap.max")


def take_memory():
    Path("/proc/self/oom_score_adj").write_text("1000")  # the child goes, not the probe
    len(bytearray(400 << 20).replace(b"\0", b"x"))


def cpu_share():
    started, used = time.monotonic(), time.process_time()
    while time.monotonic() - started < 2:
        pass
    return (time.process_time() - used) / (time.monotonic() - started)


def threads_until_refused():
    stop, started = threading.Event(), []
    try:
        while len(started) < 1000:
            thread = threading.Thread(target=stop.wait)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        return len(started), type(error).__name__
    finally:
        stop.set()
        for thread in started:
            thread.join()
    return len(started), "none"


def files_until_refused():
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        for fd in held:
            os.close(fd)


def raise_limit():
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    except (ValueError, OSError):
        return "refused"
    return "raised"


def limits():
    wanted = (
        "Max core file size", "Max locked memory", "Max msgqueue size", "Max open files", "Max nice priority",
        "Max pending signals", "Max realtime priority",
    )  # fmt: skip
    return {
        line[:26].strip(): line[26:].split()[:2] for line in lines("/proc/self/limits") if line[:26].strip() in wanted
    }


def masked():
    found = {}
    for name in MASKED:
        path = Path(name)
        if path.is_dir():
            found[name] = "shown" if list(path.iterdir()) else "empty"
        elif path.exists():
            found[name] = "shown" if attempt(lambda path=path: path.open("rb").close()) != "ok" else _first_bytes(path)
    return found


def _first_bytes(path):
    with path.open("rb") as file:
        return "shown" if file.read(16) else "empty"


def read_only():
    mounted = mounts()
    places = ("/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/sys")
    return {place: "ro" in mounted.get(place, {"options": []})["options"] for place in places if Path(place).exists()}


def cgroup_write():
    found = list(Path("/sys/fs/cgroup").rglob("cgroup.procs"))
    results = {attempt(lambda path=path: path.write_text("1")) for path in found}
    return results.pop() if len(results) == 1 else str(sorted(results))


def main():
    threads, thread_error = threads_until_refused()
    print(json.dumps({"started_threads": threads, "thread_error": thread_error, **process(), **kernel(), **files()}))


def process():
    """Who it is, what it sees of the host, and what it may use."""
    return {
        "pid": os.getpid(),
        "uids": list(os.getresuid()),
        "gids": list(os.getresgid()),
        "groups": os.getgroups(),
        "hostname": platform.node(),
        "environ": dict(os.environ),
        "threads": status_of_threads(),
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "resolvers": lines("/etc/resolv.conf"),
        "routes": lines("/proc/net/route")[1:],
        "namespaces": {path.name: str(path.readlink()) for path in Path("/proc/self/ns").iterdir()},
        "limits": limits(),
        "cpu_share": cpu_share(),
        "oom_score_adj": int(Path("/proc/self/oom_score_adj").read_text()),
        "cgroup_paths": [line.split(":", 2)[2] for line in lines("/proc/self/cgroup")],
    }


def kernel():
    """What comes of calls that are denied, and of more than its limits allow."""
    return {
        "denied": {name: call(*arguments) for name, arguments in DENIED.items()},
        "unshare_user": in_child(lambda: call(272, 0x10000000) != "ok"),
        "memory_limit": cgroup_number("memory/memory.limit_in_bytes", "memory.max"),
        "swap_limit": swap_limit(),
        "memory_hit": in_child(take_memory),
        "open_error": files_until_refused(),
        "raise_limit": raise_limit(),
        "lower_oom_score": attempt(lambda: Path("/proc/self/oom_score_adj").write_text("-1")),
        "cgroup_write": cgroup_write(),
    }


def files():
    """What is mounted, and what can be written there."""
    return {
        "mounts": mounts(),
        "writes": writes(),
        "writable": writable(),
        "mqueue_file": attempt(lambda: create("/dev/mqueue/x")),
        "scratch": {place: fill(place) for place in ("/tmp", "/dev/shm")},
        "dataset": Path("/datasets/prices/prices.csv").read_text(),
        "dataset_write": attempt(lambda: create("/datasets/prices/x")),
        "masked": masked(),
        "read_only": read_only(),
        "devices": [p.name for p in Path("/dev").iterdir() if not p.is_dir() and not p.is_symlink()],
    }


main()
