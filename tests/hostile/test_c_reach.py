"""Memory, files, descriptors and sockets of the runner and of other jobs, which no job can reach."""

import json

import pytest

from tests.hostile.alone import PRELUDE, View, only_root, settled

pytestmark = [pytest.mark.docker, only_root]

# ---- memory, files and descriptors -----------------------------------------------------------------------------------

LOOK = """
def main(pids):
    told = {}
    for pid in pids:
        for name in ("mem", "environ", "maps", "fd", "root", "cwd", "exe", "status", "cmdline", "stat", "ns/pid", "task"):
            path = f"/proc/{pid}/{name}"
            def look():
                if name in ("fd", "task"):
                    os.listdir(path)
                elif name in ("root", "cwd", "exe", "ns/pid"):
                    os.readlink(path)
                else:
                    with open(path, "rb") as file:
                        name == "mem" or file.read(10)
            told.setdefault(name, set()).add(attempt(look))
    return {name: sorted(words) for name, words in told.items()}
"""


def test_c8_a_job_finds_no_process_in_proc(unmoved, unbound, victim, record):
    loose = unbound(LOOK, [victim.pid])
    assert {word for words in loose.values() for word in words} == {"ok"}
    seen = unmoved(LOOK, [1, 2, 3, 4, 5, 7, 20, "self", "thread-self"]).value
    assert seen.pop("fd") == ["ENOENT", "ok"], "its own descriptors"
    assert {word for words in seen.values() for word in words} == {"ENOENT"}
    others = unmoved(LOOK, [1, 2, 3, 4, 5, 7, 20]).value
    assert {word for words in others.values() for word in words} == {"ENOENT"}
    record("C8", "/proc/PID/mem, environ, maps, fd, root, cwd, exe", "ERR",
           stopped_by=["namespaces", "landlock", "runner"], seen=seen, outside=loose)  # fmt: skip


def test_c8_no_second_proc_can_be_mounted_or_reached_by_a_path_around(unmoved, record):
    code = """
def main():
    told = {"mount": call(165, b"proc", b"/tmp", b"proc", 0, None)}
    for path in ("/proc/..//proc/1", "/dev/fd/../../1", "/dev/fd/../environ", "/proc/self/fd/../stat", "/etc/mtab", "/tmp/../proc/self/mem"):
        told[path] = attempt(lambda: os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK)))
    for flags, name in ((os.O_PATH, "path"), (os.O_RDONLY, "read")):
        place = os.open("/", flags | os.O_DIRECTORY)
        told[f"openat {name}"] = attempt(lambda: os.open("proc/1/mem", os.O_RDONLY, dir_fd=place))
    return told
"""
    seen = unmoved(code).value
    assert set(seen.values()) <= {"EPERM", "ENOENT", "EACCES"}, seen
    record(
        "C8", "another /proc: mounted, by /dev/fd, by openat", "ERR", stopped_by=["namespaces", "job filter"], seen=seen
    )


VM = """
def main(pid, address):
    here = ctypes.create_string_buffer(64)
    local = struct.pack("QQ", ctypes.addressof(here), 64)
    remote = struct.pack("QQ", address, 64)
    nr = {"process_vm_readv": (310, pid, local, 1, remote, 1, 0), "process_vm_writev": (311, pid, local, 1, remote, 1, 0),
          "ptrace_seize": (101, 0x4206, pid, 0, 0), "ptrace_attach": (101, 16, pid, 0, 0), "kcmp": (312, pid, os.getpid(), 0, 0, 0)}
    told = {name: call(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in rest)) for name, (number, *rest) in nr.items()}
    fd = os.pidfd_open(pid)
    told["pidfd_getfd"] = call(438, fd, 0, 0)
    told["process_madvise"] = call(440, fd, remote, ctypes.c_long(1), ctypes.c_long(21), 0)
    return told
"""


def test_c7_the_memory_of_another_process_is_neither_read_nor_written(unmoved, unbound, victim, record):
    with open(f"/proc/{victim.pid}/maps") as maps:
        address = next(int(line.split("-")[0], 16) for line in maps if " rw-p " in line and "[heap]" in line)
    loose = unbound(VM, victim.pid, address)
    assert [
        loose[name] for name in ("process_vm_readv", "process_vm_writev", "ptrace_seize", "kcmp", "pidfd_getfd")
    ] == ["ok"] * 5
    seen = unmoved(VM, 1, 0x1000).value
    assert set(seen.values()) == {"EPERM"}
    record("C7", "process_vm_readv and writev, ptrace, kcmp, pidfd_getfd, process_madvise on process 1", "ERR",
           stopped_by=["job filter", "seccomp", "namespaces", "landlock"], seen=seen, outside=loose)  # fmt: skip


def test_d11_the_siblings_of_a_job_are_not_to_be_seen_either(alone, record):
    code = """
import json
while True:
    there = [pid for pid in range(1, 2000) if attempt(lambda: os.kill(pid, 0)) != "ESRCH"]
    opened = [pid for pid in range(1, 2000) if attempt(lambda: os.close(os.pidfd_open(pid))) == "ok"]
    print(json.dumps([there, opened, os.getpid(), os.getppid()]), flush=True)
    time.sleep(0.1)
"""
    container = alone.rest()["container"]
    job_id = alone.client.submit(PRELUDE + code)
    events = alone.client.stream(job_id, timeout=60)
    next(events)
    alone.daemon.until(lambda: len(View(container).others) == 4)  # the job, the parked child, and the init of each
    next(events)  # may have been printed before that
    there, opened, mine, parent = json.loads(next(events).text.splitlines()[-1])
    alone.client.cancel(job_id)
    assert there == opened == [1, mine]
    assert parent == 0  # in a namespace that cannot be named from here
    assert alone.rest()["container"] == container
    record(
        "D11", "the parked sibling: found by kill(pid, 0) or pidfd_open", "INERT", stopped_by=["namespaces"], seen=there
    )


def test_c31_a_job_holds_four_descriptors_and_each_is_its_own(unmoved, record):
    code = """
import stat
def main():
    held = {}
    for number in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
        try:
            held[number] = stat.filemode(os.fstat(number).st_mode)[0]
        except OSError:
            pass
    return held
"""
    held = unmoved(code).value
    kinds = [held[number] for number in sorted(held)]
    assert kinds == ["c", "p", "p", "s"], held  # /dev/null, two pipes, its own channel
    record("C31", "leaked descriptors", "INERT", stopped_by=["runner"], seen=held)


# ---- imitation -------------------------------------------------------------------------------------------------------

IMITATE = """
def main():
    told = {}
    for path in ("/run/pool/link.sock", "/run/pool", "/run", "/var/run"):
        told[path] = sorted(os.listdir(path)) if attempt(lambda: os.listdir(path)) == "ok" else attempt(lambda: os.stat(path))
    told["socket"] = attempt(lambda: socket.socket(socket.AF_UNIX))
    left, right = socket.socketpair()
    for name in ("/run/pool/link.sock", "\\0abstract"):
        told[f"connect {name!r}"] = attempt(lambda: left.connect(name))
        told[f"bind {name!r}"] = attempt(lambda: left.bind(name))
        datagram, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        told[f"sendto {name!r}"] = attempt(lambda: datagram.sendto(b"x", name))
    told["listen"] = attempt(lambda: left.listen())
    return told
"""


def test_c36_a_job_reaches_no_socket_by_any_name(unmoved, record):
    seen = unmoved(IMITATE).value
    assert seen.pop("/run") == []
    assert {seen.pop("/run/pool"), seen.pop("/run/pool/link.sock"), seen.pop("/var/run")} == {"ENOENT"}
    to = {name: seen.pop(name) for name in list(seen) if name.startswith("sendto")}
    assert set(seen.values()) == {"EPERM"}, seen
    assert set(to.values()) <= {"ENOENT", "ECONNREFUSED", "EPERM", "EACCES", "EISCONN"}, to
    record("C36", "the link's socket, abstract sockets, by connect, bind, listen and sendto", "ERR",
           stopped_by=["job filter", "namespaces", "landlock"], seen=seen | to)  # fmt: skip


def test_c36_sendto_from_a_pair_reaches_a_named_socket_nowhere(unmoved, unbound, record):
    """The one way to name a socket that is left: a datagram from a pair. There is nobody it could be for."""
    code = """
def main():
    told = {}
    sender, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for name in ("/run/pool/link.sock", "/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock",
                 "/run/systemd/notify", "/dev/log", "/run/systemd/journal/socket", "\\0/containerd-shim", "\\0x"):
        told[name] = attempt(lambda: sender.sendto(b"x", name))
    return told
"""
    receiver = "def main():\n    r = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); r.bind('\\0hostile')\n    s, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n    s.sendto(b'x', '\\0hostile')\n    return r.recv(1)\n"
    assert unbound(receiver) == b"x", "a pair can send by name"
    seen = unmoved(code).value
    assert set(seen.values()) <= {"ENOENT", "ECONNREFUSED", "EPERM", "EACCES"}, seen
    record(
        "C36",
        "docker.sock, containerd, systemd by datagrams from a pair",
        "ERR",
        stopped_by=["namespaces", "container"],
        seen=seen,
    )


@pytest.mark.parametrize(
    "doing",
    [
        "sock.sendall(b'\\xff' * 64)",
        "sock.sendall(struct.pack('!IQ', 1, 5))",
        "sock.shutdown(socket.SHUT_RDWR)",
        "sock.close()",
        "socket.send_fds(sock, [b'x'], [0, 1, 2] * 20)",
        "sock.sendall(struct.pack('!IQQ', 2, 1 << 62, 1 << 62))",
        "[sock.sendall(b'') for _ in range(1000)]",
        "os.dup2(1, fd); os.dup2(fd, 1)",
    ],
    ids=["garbage", "half a message", "shut down", "closed", "descriptors", "a lie", "nothing", "replaced"],
)
def test_d18_whatever_is_said_on_the_channel_stays_with_the_job(unmoved, alone, record, doing):
    code = f"""
def main():
    fd = next(n for n in range(3, 256) if attempt(lambda: os.fstat(n)) == "ok")
    sock = socket.socket(fileno=fd)
    {doing}
    return 1
"""
    most = alone.view().usage()["runner descriptors"]
    result = unmoved(code)
    assert result.outcome in {"crash", "output", "ok"}, result
    assert result.outcome != "ok" or result.value == 1
    assert settled(alone, lambda view: view.usage()["runner descriptors"] <= most)
    record(
        "D18",
        f"the result channel: {doing[:60]}",
        "KILL" if result.outcome != "ok" else "INERT",
        stopped_by=["runner"],
        seen=result.reason,
    )
