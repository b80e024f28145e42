"""The entries of class C besides calls and files: networks, ipc between jobs, locks, credentials.

Raw calls are in test_c_syscalls.py, files in test_c_files.py, the runner in test_c_runner.py and test_c_reach.py.
"""

import os
from ast import literal_eval
from pathlib import Path

import pytest

from pool.model import Limits
from tests.docker import live
from tests.hostile.alone import PRELUDE

pytestmark = pytest.mark.docker

FAMILIES = {
    "INET": 2, "INET6": 10, "NETLINK": 16, "PACKET": 17, "KEY": 15, "ALG": 38, "VSOCK": 40, "XDP": 44, "TIPC": 30,
    "BLUETOOTH": 31, "RXRPC": 33, "CAN": 29, "NFC": 39, "IB": 27, "SMC": 43, "QIPCRTR": 42, "UNIX": 1, "any": 0,
}  # fmt: skip
SOCKETS = """
def main(families):
    told = {}
    for name, family in families.items():
        for kind in (1, 2, 3, 5, 10):
            fd = LIBC.syscall(41, family, kind, 0)
            told.setdefault(name, set()).add("ok" if fd >= 0 else errno.errorcode[ctypes.get_errno()])
            fd < 0 or os.close(fd)
    return {name: sorted(words) for name, words in told.items()}
"""


def test_c24_a_job_reaches_no_network(attack, outside, record):
    code = (
        "import socket\n"
        "def main():\n"
        "    with socket.socket() as sock:\n"
        "        return sock.connect_ex(('127.0.0.1', 9))\n"
    )
    assert outside(code).value == "111"  # refused by a port where nobody listens: there is a network
    result = attack(code)
    assert result.error.type == "PermissionError", result
    record("C24", "connect to the host or the network", "ERR", stopped_by=["job filter", "namespaces", "container", "seccomp"],
           seen=result.error.message, outside="connection refused by the port")  # fmt: skip


def test_c23_no_family_of_sockets_is_there_by_name_or_number(attack, outside, record):
    loose = literal_eval(outside(PRELUDE + SOCKETS, FAMILIES).value)
    assert [name for name, words in loose.items() if "ok" in words]
    assert not any("EPERM" in words for name, words in loose.items() if name in {"INET", "UNIX", "NETLINK"})
    seen = attack(PRELUDE + SOCKETS, FAMILIES).value
    assert {word for words in seen.values() for word in words} == {"EPERM"}
    record("C23", f"sockets of {len(FAMILIES)} families", "ERR", stopped_by=["job filter"], seen="EPERM for each",
           outside=f"made: {[name for name, words in loose.items() if 'ok' in words]}")  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into another user's processes")
def test_c24_the_job_is_in_an_empty_network_behind_that(daemon, client, attack, record):
    """By the host's view of a running job: the second line, should the filter fail."""
    job = client.submit("import time\ntime.sleep(60)", pool="open", limits=Limits(wall_s=60))
    daemon.until(lambda: job in {each["job"] for each in daemon.workers("open")})
    container = next(each["container"] for each in daemon.workers("open") if each["job"] == job)
    daemon.until(lambda: len(networks_of(container)) == 2, timeout=60)  # the worker's and that of its jobs
    networks = networks_of(container)
    client.cancel(job)
    assert live.namespaces("self")["net"] not in networks
    assert list(networks.values()) == [(["lo"], [])] * 2
    record("C24", "the network namespace of a running job, seen from the host", "INERT", stopped_by=["namespaces", "container"],
           seen="loopback, no route")  # fmt: skip


def networks_of(container):
    """{namespace: (devices, routes)} of every process of a container."""
    found = {}
    for pid in live.processes(container):
        try:
            devices = [row.split(":")[0].strip() for row in Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]]
            routes = Path(f"/proc/{pid}/net/route").read_text().splitlines()[1:]
            found[live.namespaces(pid)["net"]] = devices, routes
        except OSError:
            continue  # it has just ended
    return found


def test_c29_c1_every_thread_of_a_job_is_without_rights(attack, outside, record):
    code = """
import threading
def main():
    def sets():
        answer = ctypes.create_string_buffer(24)
        assert LIBC.syscall(125, struct.pack("Ii", 0x20080522, 0), answer) == 0
        return answer.raw.hex().strip("0")
    told = []
    def look():
        told.append((sets(), LIBC.prctl(39, 0, 0, 0, 0), LIBC.prctl(3, 0, 0, 0, 0)))
    look()
    threads = [threading.Thread(target=look) for _ in range(3)]
    [each.start() for each in threads], [each.join() for each in threads]
    gained = attempt(lambda: LIBC.syscall(126, struct.pack("Ii", 0x20080522, 0), b"\\xff" * 24) == 0 or os.kill(1 << 22, 0))
    return sorted(set(told)), gained
"""
    told, gained = attack(PRELUDE + code).value
    assert [tuple(each) for each in told] == [("", 1, 0)], "no capability, no new privileges, not dumpable"
    assert gained == "ESRCH"
    if os.geteuid() == 0:
        loose, _ = literal_eval(outside(PRELUDE + code).value)
        assert loose[0][0] != ""
    record(
        "C29",
        "capabilities of every thread; capset of all",
        "ERR",
        stopped_by=["job filter", "namespaces", "container"],
        seen=told,
    )


def test_c43_ipc_that_outlives_a_process_is_refused_and_a_pair_of_sockets_is_bounded(attack, outside, record):
    code = """
def main():
    told = {"shm": call(29, 4242, 4096, 0o1600), "sem": call(64, 4242, 1, 0o1600), "msg": call(68, 4242, 0o1600),
            "mq": call(240, b"/x", 0o102, 0o600, None)}
    held, sent = [], 0
    try:
        while True:
            left, right = socket.socketpair()
            left.setblocking(False)
            held += [left, right]
            try:
                while True:
                    sent += left.send(b"x" * 65536)
            except BlockingIOError:
                pass
    except OSError as error:
        told["pairs"] = errno.errorcode[error.errno]
    return told, len(held), sent
"""
    loose = outside(
        PRELUDE
        + code[: code.index("    held")]
        + "    [LIBC.syscall(n, LIBC.syscall(m, 4242, 0), *r) for n, m, r in ((31, 29, (0, 0)), (66, 64, (0, 0)), (71, 68, (0, 0)))]\n    call(241, b'/x')\n    return told\n"
    )
    assert {word for name, word in literal_eval(loose.value).items() if name != "mq"} <= {"ok", "EEXIST"}, loose
    told, held, sent = attack(PRELUDE + code).value
    assert set(told.values()) == {"EPERM", "EMFILE"}
    assert told["pairs"] == "EMFILE"
    assert held < 256
    record("C43", "System V ipc, message queues; sockets filled", "ERR", stopped_by=["job filter", "seccomp", "namespaces", "limits"],
           seen=f"{told}, {sent >> 10} KiB in {held} sockets")  # fmt: skip


def test_b39_descriptors_in_flight_are_those_of_the_job_and_go_with_it(attack, record):
    code = """
def main():
    left, right = socket.socketpair()
    sent = 0
    try:
        while sent < 5000:
            socket.send_fds(left, [b"x"], [0] * 16)
            sent += 16
            left.setblocking(False)
    except OSError as error:
        return sent, errno.errorcode[error.errno]
    return sent, "ok"
"""
    sent, word = attack(PRELUDE + code).value
    assert word in {"ETOOMANYREFS", "EAGAIN"}
    assert sent < 5000
    record("B14", "descriptors stashed in flight", "ERR", stopped_by=["limits"], seen=f"{sent}, {word}")


def test_c41_a_job_that_abuses_futexes_robust_lists_and_rseq_affects_itself_only(attack, record):
    code = """
def main():
    def child(action):
        if (pid := os.fork()) == 0:
            action()
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    junk = ctypes.create_string_buffer(b"\\xff" * 64, 64)
    return [
        child(lambda: LIBC.syscall(273, junk, 24)),                       # a robust list that points nowhere
        child(lambda: LIBC.syscall(334, junk, 32, 0, 0)),                 # a second rseq
        child(lambda: LIBC.syscall(218, ctypes.c_long(-4096))),           # clear_child_tid into nowhere
        child(lambda: LIBC.syscall(202, junk, 11, 1, 1, junk, 0)),        # requeue to itself
        child(lambda: LIBC.syscall(324, 0xFFFF, 0, 0)),                   # membarrier
        child(lambda: LIBC.syscall(158, 0x1002, ctypes.c_ulong(0x7FFFFFFFF000))),  # the thread's own base
        child(lambda: LIBC.syscall(131, struct.pack("QiiQ", 1, 0, 0, 1), None)),   # a signal stack on nothing
    ]
"""
    result = attack(PRELUDE + code)
    assert result.ok, result
    record(
        "C41",
        "robust lists, rseq, futexes, thread base, signal stack",
        "INERT",
        stopped_by=["namespaces"],
        seen=result.value,
    )


def test_c42_counters_and_clocks_a_job_has_are_those_the_documents_concede(attack, record):
    code = """
import mmap
def main():
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(bytes.fromhex("0f31c3"))  # rdtsc; ret
    ticks = ctypes.CFUNCTYPE(ctypes.c_uint)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return ticks() != ticks(), call(298, b"\\0" * 112, 0, -1, -1, 0)
"""
    assert tuple(attack(PRELUDE + code).value) == (True, "EPERM")
    record(
        "C42",
        "time stamp counter and perf",
        "INERT",
        stopped_by=["job filter"],
        seen="rdtsc ticks, which is conceded; perf is refused",
    )


def test_c44_a_file_that_is_held_open_or_locked_delays_no_other_job(attack, client, record):
    code = """
def main():
    told = set()
    for path in ("/usr/bin/python3", "/opt/pool/runner/child.py", "/etc/passwd"):
        fd = os.open(path, os.O_RDONLY)
        told.add(attempt(lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)))
        told.add(attempt(lambda: fcntl.fcntl(fd, 1024, 1)))
        told.add(attempt(lambda: fcntl.fcntl(fd, 1026, 1)))
    print(*sorted(told), flush=True)
    time.sleep(1000)
"""
    job = client.submit(PRELUDE + code, entry="main", pool="open")
    told = next(client.stream(job, timeout=60)).text.split()
    assert set(told) <= {"ok", "EPERM"}
    assert client.run("import json, decimal, sqlite3\nresult = 1", pool="open").value == 1
    client.cancel(job)
    assert client.result(job, timeout=120).outcome == "cancelled", "it held them all the while"
    record(
        "C44", "files of the image locked, leased and watched", "INERT", stopped_by=["job filter", "seccomp"], seen=told
    )
