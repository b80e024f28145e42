"""A job cannot read, signal, slow down, starve or imitate the runner and the zygote.

Each attack runs in a job, and the proof is taken from the host: limits, scheduling, signals and environment of both
are to the letter what they were, and the same worker serves on.
"""

import errno
import os
import signal
from pathlib import Path

import pytest

from tests.hostile.alone import PRELUDE, only_root

pytestmark = [pytest.mark.docker, only_root]

# ---- signals ---------------------------------------------------------------------------------------------------------

SIGNALS = """
def main():
    for number in range(1, 65):  # those that could reach itself
        if number not in (signal.SIGKILL, signal.SIGSTOP) and not 32 <= number <= 33:
            signal.signal(number, signal.SIG_IGN)
    mine = os.getpid()
    told = {}
    for number in range(65):
        for pid in (1, *range(2, 51), 100, 1000, 4194303):
            if pid != mine:
                told.setdefault(attempt(lambda: os.kill(pid, number)), set()).add(pid)
        told.setdefault("all: " + attempt(lambda: os.kill(-1, number)), set()).add(-1)
        for pid in (1, 2, 7):
            if pid != mine:
                told.setdefault("tgkill: " + call(234, pid, pid, number), set()).add(pid)
    fd = os.pidfd_open(1)
    for number in range(65):
        told.setdefault("pidfd: " + attempt(lambda: signal.pidfd_send_signal(fd, number)), set()).add(1)
    return {word: sorted(pids)[:3] for word, pids in told.items()}
"""


def test_c6_no_signal_from_a_job_reaches_anybody_but_its_own(unmoved, record):
    result = unmoved(SIGNALS)
    assert result.ok, result
    # Process 1 is the init of its own namespace, and in no reach either. Beyond it there is nobody.
    assert set(result.value) == {"EPERM", "ESRCH", "all: ESRCH", "tgkill: EPERM", "tgkill: ESRCH", "pidfd: EPERM"}
    record("C6", "every signal to process 1, to all, to pids 1 to 50, by kill, tgkill and pidfd", "INERT",
           stopped_by=["namespaces", "landlock"], seen=result.value, outside="the process is ended by it")  # fmt: skip


NAMES = (b"VmHWM:-5 kB", b"VmHWM: 99999999", b"\n\nVmHWM:\t-7", b"a) R 1 1 1 1")
NAMED = """
def main(name):
    LIBC.prctl(15, name, 0, 0, 0)
    return 1
"""


@pytest.mark.parametrize("name", NAMES, ids=[name.decode("unicode_escape") for name in NAMES])
def test_c6_a_name_that_reads_as_a_figure_of_the_kernel_is_a_name(unmoved, unbound, record, name):
    """The runner reads what a process has used from files of the kernel that have its name in them too."""
    result = unmoved(NAMED, name)
    assert result.value == 1, result
    assert 1 << 20 < result.usage.max_rss_bytes < 200 << 20
    assert 0 < result.usage.cpu_s < 20
    lines = unbound(
        f"def main():\n    LIBC.prctl(15, {name!r}, 0, 0, 0)\n    return open('/proc/self/status').read()\n"
    )
    first = lines.splitlines()[0]
    assert first.partition("Name:\t")[2].replace("\\n", "").split(":")[0] in ("VmHWM", "a) R 1 1 1 1")
    record("C6", "a name of its process that reads as its peak of memory", "INERT", stopped_by=["runner"],
           seen="1; same worker", outside=first)  # fmt: skip


def test_c6_outside_the_same_signals_end_a_process(victim, outside):
    assert outside("import os\ndef main(pid):\n    os.kill(pid, 15)", victim.pid).error == ""
    assert victim.wait(60) == -signal.SIGTERM


def test_c6_a_job_that_kills_all_it_can_still_answers(unmoved):
    code = """
def main():
    told = [attempt(lambda: os.kill(pid, number)) for pid in (1, -1) for number in (2, 9, 15, 19)]
    time.sleep(0.2)
    return told
"""
    assert unmoved(code).value == ["EPERM"] * 4 + ["ESRCH"] * 4


def test_c6_signals_with_a_forged_sender_are_refused(unmoved, unbound, victim, record):
    code = """
def main(pid):
    forged = struct.pack("iiiiii", 10, 0, -1, 0, pid, 0).ljust(128, b"\\0")
    return [call(129, pid, 10, forged), call(297, pid, pid, 10, forged), call(200, pid, 10)]
"""
    loose = unbound(code, victim.pid)
    assert loose[0] == "ok"
    seen = unmoved(code, 1).value
    assert set(seen) == {"EPERM"}
    record("C6", "rt_sigqueueinfo, rt_tgsigqueueinfo, tkill to process 1", "ERR",
           stopped_by=["job filter", "seccomp", "namespaces"], seen=seen, outside=loose)  # fmt: skip


def test_d17_a_flood_of_dead_children_and_a_stolen_session_do_not_disturb_the_runner(unmoved, record):
    code = """
def main():
    for _ in range(60):
        if os.fork() == 0:
            os._exit(0)
        os.waitpid(-1, 0)
    told = [attempt(os.setsid), attempt(lambda: os.setpgid(0, 0)), attempt(lambda: os.tcsetpgrp(0, 1))]
    told += [attempt(lambda: os.open("/dev/tty", os.O_RDWR)), attempt(lambda: fcntl.ioctl(0, 0x5412, b"x"))]
    return told
"""
    result = unmoved(code)
    assert result.ok, result
    assert result.value[-1] == "EPERM"
    assert result.value[3] in {"ENXIO", "EACCES"}
    record("D17", "SIGCHLD flood, session and terminal theft", "INERT", stopped_by=["namespaces", "job filter", "seccomp"],
           seen=result.value)  # fmt: skip


# ---- limits and scheduling -------------------------------------------------------------------------------------------

STARVE = """
def main(pid):
    low = struct.pack("QQ", 4, 4)
    mask = struct.pack("Q", 1)
    param = struct.pack("i", 0)
    told = {
        "prlimit nofile": call(302, pid, 7, low, None), "prlimit nproc": call(302, pid, 6, low, None),
        "prlimit as": call(302, pid, 9, low, None), "affinity": call(203, pid, 8, mask),
        "setpriority process": call(141, 0, pid, 19), "setpriority group": call(141, 1, pid, 19),
        "setpriority user": call(141, 2, os.getuid(), 19), "ioprio process": call(251, 1, pid, 0x6000),
        "ioprio user": call(251, 3, os.getuid(), 0x6000), "scheduler": call(144, pid, 5, param),
        "parameter": call(142, pid, param), "attributes": call(314, pid, struct.pack("IIQiIQQQ", 48, 5, 0, 19, 0, 0, 0, 0), 0),
    }
    for name in ("oom_score_adj", "oom_adj", "timerslack_ns", "autogroup", "coredump_filter", "clear_refs", "comm"):
        def write():
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write("0")
        told[name] = attempt(write)
    return told
"""


@pytest.mark.parametrize("pid", [1, 2, 3, -1], ids=["init", "itself", "next", "all"])
def test_d16_limits_and_scheduling_of_others_stay_as_they_are(unmoved, record, pid):
    seen = unmoved(STARVE, pid).value
    own = {"prlimit nofile", "prlimit nproc", "prlimit as"}
    assert set(seen.values()) <= {"EPERM", "ENOENT", "ESRCH"}, seen
    assert {seen[name] for name in own} == {"EPERM"}, "prlimit is for the caller itself, by 0"
    record("D16", f"limits, affinity, nice, io priority and oom score by pid {pid}", "ERR",
           stopped_by=["job filter", "seccomp", "namespaces"], seen=seen)  # fmt: skip


def test_d16_outside_they_change_another_process(victim, unbound):
    before = os.sched_getaffinity(victim.pid)
    # What concerns all processes of a user is asked for one that has none.
    harmless = STARVE.replace(", os.getuid(), 19", ", 999999, 19").replace("os.getuid(), 0x6000", "999999, 0x6000")
    loose = unbound(harmless, victim.pid)
    assert {
        loose[name] for name in ("prlimit nofile", "affinity", "setpriority process", "scheduler", "oom_score_adj")
    } == {"ok"}, loose
    assert os.getpriority(os.PRIO_PROCESS, victim.pid) == 19
    assert os.sched_getaffinity(victim.pid) == {0} != before or len(before) == 1


def test_d16_a_jobs_own_limits_die_with_it(unmoved, record):
    code = """
def main():
    for each in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_STACK):
        resource.setrlimit(each, (1, 1))
    told = [attempt(lambda: os.nice(5)), attempt(lambda: os.sched_setaffinity(0, {0}))]
    return told
"""
    assert unmoved(code).value == ["EPERM", "EPERM"]
    limits = unmoved("def main():\n    return [resource.getrlimit(n) for n in (6, 7, 1, 3)]").value
    assert all(soft > 1 for soft, _ in limits), limits
    record("D16", "own limits lowered", "INERT", stopped_by=["runner"], seen=limits)


def test_c6_a_job_that_takes_all_cpu_and_all_processes_does_not_starve_the_runner(alone, unmoved, record):
    code = """
def main():
    for _ in range(200):
        try:
            if os.fork() == 0:
                while True: pass
        except OSError as error:
            full = error.errno
            break
    while True: pass
"""
    result = unmoved(code, limits={"wall_s": 1.5})
    assert result.outcome == "timeout", result
    record(
        "C6", "starve the runner of CPU and processes", "KILL", stopped_by=["limits", "namespaces"], seen=result.reason
    )


# ---- descriptors in flight -------------------------------------------------------------------------------------------

IN_FLIGHT = """
import array, socket, time
def main(pause):
    ends, sent = [], 0
    try:
        while True:  # the kernel counts them for each user: those of all processes of a worker together
            ends.append(socket.socketpair())
            sent += ends[-1][0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 250))])
    except OSError as error:
        time.sleep(pause)  # the runner has the next child forked and handed over meanwhile, or tries to
        return sent, error.errno
"""


def test_b41_a_job_that_has_all_descriptors_of_its_user_in_flight_keeps_no_next_child_from_the_runner(
    unmoved, outside, record
):
    result = unmoved(IN_FLIGHT, 0.5)
    assert result.ok, result
    sent, number = result.value
    assert sent >= 1
    assert number == errno.ETOOMANYREFS
    assert outside(IN_FLIGHT, 0, user=65533).value.endswith(f", {errno.ETOOMANYREFS})")
    record("B41", "all descriptors of its user are in flight", "INERT", stopped_by=["runner"],
           seen=f"the next child comes after it ({sent} messages of 250)", outside="the same")  # fmt: skip


# ---- watched descriptors ---------------------------------------------------------------------------------------------

WATCHES = Path("/proc/sys/fs/epoll/max_user_watches")
FEW = 8000
WATCHING = """
import array, select
def in_flight():
    ends = []
    try:
        while True:
            ends.append(socket.socketpair())
            ends[-1][0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 250))])
    except OSError:
        return ends
def watch():
    targets, kept = [os.eventfd(0) for _ in range(100)], []
    try:
        for _ in range(100):
            kept.append(select.epoll())
            for each in targets:
                kept[-1].register(each)
    except OSError as error:
        return kept, errno.errorcode[error.errno]
    return kept, "none"
def main(pause):
    ends = in_flight()  # so the runner makes the next child when all watches are taken
    kept, told = watch()
    for each in sum(ends, ()):
        each.close()
    time.sleep(pause)
    return told
"""


@pytest.fixture
def few_watches():
    """As a host of little memory has, which the kernel gives each user."""
    before = WATCHES.read_text()
    WATCHES.write_text(str(FEW))
    yield
    WATCHES.write_text(before)


@pytest.mark.usefixtures("few_watches")
def test_b41_a_job_that_has_all_watches_of_its_user_does_not_end_the_runner(unmoved, outside, record):
    assert outside(PRELUDE + WATCHING, 0, user=65533).value == "'ENOSPC'"
    seen = unmoved(WATCHING, 0.5)
    assert (seen.outcome, seen.value) == ("ok", "ENOSPC"), seen
    record("B41", "all descriptors that its user may watch by epoll", "INERT", stopped_by=["runner"],
           seen="the runner makes the next child beside it", outside="ENOSPC")  # fmt: skip
