"""Attempts of a job in the local engine against the host: each fails inside, and works in a plain process."""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.local.conftest import NOBODY, caller, granted

PROBE = Path(__file__).parents[2] / "pool/daemon/probe_inside.py"
#: `attempt` gives "done" for an attempt that succeeds, else the name of the error number.
PRELUDE = """
import ctypes, errno, os, signal, socket, sys
LIBC = ctypes.CDLL(None, use_errno=True)

def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "done"
"""
READ = "def main(path): return attempt(lambda: open(path).read(1))"
LIST = "def main(path): return attempt(lambda: os.listdir(path))"
WRITE = "def main(path): return attempt(lambda: open(path, 'w').close())"
CONNECT = "def main(port): return attempt(lambda: socket.create_connection(('127.0.0.1', port), timeout=60))"
SIGNAL = "def main(pid): return attempt(lambda: os.kill(pid, 0))"
PTRACE = """
def main(pid):
    def seize():
        if LIBC.ptrace(0x4206, pid, None, None) != 0:  # PTRACE_SEIZE
            raise OSError(ctypes.get_errno(), "ptrace")
    return attempt(seize)
"""
PROGRAM = "def main(path): return attempt(lambda: os.posix_spawn(path, [path, '-c', ''], {}))"
#: Forks until it may not; every child waits for the end of its parent.
BOMB = """
def main(most):
    reading, writing = os.pipe()
    pids = []
    try:
        while len(pids) < most:
            pid = os.fork()
            if pid == 0:
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
            pids.append(pid)
    except OSError:
        pass
    os.close(writing)
    for pid in pids:
        os.waitpid(pid, 0)
    return len(pids)
"""
TAKE = "def main(count): return len(bytearray(count))"
FILL = """
def main(count):
    import tempfile
    with tempfile.TemporaryFile() as file:
        return attempt(lambda: file.write(bytes(count)) and file.flush())
"""
SEVERAL = """
def main(count, size):
    reading, writing = os.pipe()
    for _ in range(count):
        if os.fork() == 0:
            held = bytearray(size)
            held[::4096] = b"x" * len(held[::4096])
            signal.pause()
    signal.pause()
"""
NOT_THERE = {"ENOENT", "EACCES", "EPERM", "EROFS", "ESRCH"}


@pytest.fixture
def host(tmp_path_factory):
    """A directory of this host that everybody may read and write."""
    path = Path(tempfile.mkdtemp(prefix="of-the-host-"))
    path.chmod(0o777)
    (path / "secret").write_text("secret")
    (path / "secret").chmod(0o666)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def victim(local):
    """A process of the user whose job it is."""
    owner = os.stat(f"/proc/{local.process.pid}").st_uid
    with subprocess.Popen(["/bin/sleep", "600"], user=owner, extra_groups=[]) as process:
        yield process
        process.send_signal(signal.SIGKILL)


def fails(local, code, *arguments):
    found = local(PRELUDE + code, *arguments)
    assert (found["outcome"], found["free"]) == ("ok", True), found
    assert found["value"] in NOT_THERE, found
    return found["value"]


def works(outside, code, *arguments):
    assert outside(PRELUDE + code, *arguments) == "done"


def test_files_of_the_host_cannot_be_read_or_written(local, outside, host):
    for code in (READ, WRITE):
        works(outside, code, str(host / "secret"))
        fails(local, code, str(host / "secret"))
    works(outside, LIST, str(host))
    fails(local, LIST, str(host))
    for path in ("/etc/shadow", "/etc/hostname", "/root/.profile", "/var/log/dpkg.log", "/sys/kernel/uevent_seqnum"):
        fails(local, READ, path)
    if os.geteuid() == 0 and Path("/etc/shadow").exists():
        works(outside, READ, "/etc/shadow")


def test_nothing_but_scratch_space_can_be_written(local, outside, host):
    works(outside, WRITE, str(host / "new"))
    for place in ("/", "/usr", "/etc", "/opt/pool", "/opt/pool/runner", "/run", "/dev", "/var/tmp", sys.prefix):
        fails(local, WRITE, f"{place}/new")
    assert local(PRELUDE + WRITE, "/tmp/new")["value"] == "done"
    assert not Path("/tmp/new").exists()


def test_processes_of_the_host_cannot_be_seen_signalled_or_traced(local, outside, victim):
    works(outside, SIGNAL, victim.pid)
    if os.geteuid() == 0:  # Yama may forbid it to others
        works(outside, PTRACE, victim.pid)
    for code in (SIGNAL, PTRACE):
        fails(local, code, victim.pid)
    works(outside, READ, f"/proc/{victim.pid}/cmdline")
    fails(local, READ, f"/proc/{victim.pid}/cmdline")
    assert victim.poll() is None


def test_there_is_no_network(local, outside):
    with socket.create_server(("127.0.0.1", 0)) as server:
        works(outside, CONNECT, server.getsockname()[1])
        fails(local, CONNECT, server.getsockname()[1])


def test_no_program_can_be_started(local, outside):
    works(outside, PROGRAM, "/bin/sh")
    fails(local, PROGRAM, "/bin/sh")


def test_a_fork_bomb_ends_at_the_limit(local, outside):
    assert outside(PRELUDE + BOMB, 60) == 60
    found = local(PRELUDE + BOMB, 60, limits={"processes": 10})
    assert (found["outcome"], found["free"]) == ("ok", True), found
    assert found["value"] < 10


def test_memory_beyond_the_limit_is_refused(local, outside):
    assert outside(PRELUDE + TAKE, 300 << 20) == 300 << 20
    found = local(PRELUDE + TAKE, 300 << 20)
    assert (found["outcome"], found["free"]) == ("memory", True), found


def test_scratch_space_has_its_size(local, outside):
    works(outside, FILL, 32 << 20)
    found = local(PRELUDE + FILL, 32 << 20)
    assert found["value"] in {"ENOSPC", "EFBIG"} or "limits.tmp" in found["reason"], found


def test_several_processes_together_are_held_to_the_memory_of_the_job_where_there_is_a_cgroup(local):
    if local.first["cgroup"]:
        pytest.skip(f"no cgroup: {local.first['cgroup']}")
    found = local(PRELUDE + SEVERAL, 6, 100 << 20)
    assert (found["outcome"], found["free"]) == ("memory", True), found


def test_every_attempt_of_the_lockdown_probe_is_refused(local):
    """The job with which a daemon tries each container."""
    found = local(PROBE.read_text(), 41, [], [], 24, 256 << 20, 16 << 20)
    assert found["outcome"] == "ok", found
    assert found["value"][0] == [41, 42]
    assert [row for row in found["value"][1] if row[1] != "held"] == []


def test_the_screen_refuses_before_anything_runs(local):
    found = local("import ctypes\ndef main(): return 1", screened=True)
    assert found["outcome"] == "rejected"


def test_after_all_of_it_an_honest_job_runs(local):
    found = local("def main(x): return x * 2", 21, screened=True)
    assert (found["outcome"], found["value"], found["free"]) == ("ok", 42, True)


def test_a_caller_that_is_killed_leaves_no_process_no_file_and_no_cgroup(local):
    same = None if os.stat(f"/proc/{local.process.pid}").st_uid == os.geteuid() else NOBODY
    with caller(same) as found:
        shell = granted(found).first["pid"]
        pidfd = os.pidfd_open(shell)
        found.process.kill()
        found.process.wait()
    with contextlib.closing(os.fdopen(pidfd)) as ended:
        assert select.select([ended], [], [], 120)[0], "the shell goes on"
    assert not Path(found.first["home"]).exists()
    # os.walk passes over the cgroups of others that vanish meanwhile; Path.glob raises.
    assert not any(f"pool-local-{shell}" in names for _, names, _ in os.walk("/sys/fs/cgroup"))
