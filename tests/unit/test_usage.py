"""What a job and its processes use together, from the counters of a cgroup of either version."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runner.usage import Counters, Meter, Usage, of_process

from pool import wire
from pool.model import Outcome

MIB = 1 << 20
JOB = wire.Run(job_id="j", epoch=1, wall_s=9, cpu_s=2, memory=100 * MIB, tmp=16 * MIB, output=1, result=1, processes=4)


class Version1:
    def __init__(self, root):
        self._memory, self._cpu = root / "memory", root / "cpuacct"
        self._memory.mkdir()
        self._cpu.mkdir()

    def say(self, *, cpu_s=0.0, anonymous=0, shared=0):
        (self._cpu / "cpuacct.usage").write_text(f"{int(cpu_s * 1e9)}\n")
        lines = {"cache": 1, "rss": 1, "shmem": 1, "total_rss": anonymous, "total_shmem": shared}
        (self._memory / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in lines.items()))


class Version2:
    def __init__(self, root):
        self._root = root
        (root / "cgroup.controllers").write_text("cpu memory pids\n")

    def say(self, *, cpu_s=0.0, anonymous=0, shared=0, kernel=""):
        (self._root / "cpu.stat").write_text(f"usage_usec {int(cpu_s * 1e6)}\nuser_usec 1\nsystem_usec 1\n")
        (self._root / "memory.stat").write_text(f"anon {anonymous}\nfile 1\n{kernel}shmem {shared}\n")


def kernel(held, files=0):
    """Lines of memory.stat: what the kernel holds, and how much of it is names of files."""
    return f"kernel {held}\nkernel_stack 1\nslab_reclaimable {files}\n"


@pytest.fixture(params=[Version1, Version2])
def cgroup(request, tmp_path):
    made = request.param(tmp_path)
    made.say(cpu_s=50, anonymous=60 * MIB, shared=MIB)
    return made


def test_the_counters_are_read(cgroup, tmp_path):
    found = Counters(tmp_path).read()
    assert (found.cpu_s, found.anonymous, found.shared) == (50.0, 60 * MIB, MIB)


@pytest.mark.parametrize(
    "name", ["VmHWM:-5 kB", "VmHWM: 99999999", "VmHWM:x", "\n\nVmHWM:\t-7", "a) R 1 1 1 1", ")\n) ("]
)
def test_a_process_whose_name_reads_as_a_figure_has_the_kernels_figures(name):
    comm = Path("/proc/self/comm")
    before = comm.read_text()
    try:
        comm.write_text(name)
        used = of_process(os.getpid())
    finally:
        comm.write_text(before.strip())
    assert 10 * MIB < used.max_rss_bytes < 10_000 * MIB
    assert 0 < used.cpu_s < 100_000


BURNS_IN_A_THREAD = """
import threading, time
def burn():
    while time.thread_time() < 0.025: pass
thread = threading.Thread(target=burn); thread.start(); thread.join()
print(time.process_time(), flush=True)
input()
"""


def test_cpu_time_of_threads_counts_exactly():
    with subprocess.Popen(
        [sys.executable, "-c", BURNS_IN_A_THREAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        told_s = float(process.stdout.readline())
        used = of_process(process.pid)
        process.communicate("\n")
    assert told_s <= used.cpu_s < told_s + 1


def test_what_was_used_before_the_job_is_not_the_jobs(cgroup, tmp_path):
    meter = Meter(tmp_path)
    cgroup.say(cpu_s=51.9, anonymous=150 * MIB, shared=15 * MIB)
    assert meter.excess(JOB) is None


def test_the_cpu_time_of_a_call_counts_from_the_first_look_at_it(cgroup, tmp_path):
    meter = Meter(tmp_path)
    cgroup.say(cpu_s=59, anonymous=60 * MIB)
    assert meter.excess(JOB, 1) is None
    cgroup.say(cpu_s=61, anonymous=60 * MIB)
    assert meter.excess(JOB, 1) is None
    cgroup.say(cpu_s=61.5, anonymous=60 * MIB)
    assert meter.excess(JOB, 1)[0] is Outcome.TIMEOUT


@pytest.mark.parametrize(
    ("used", "outcome", "words"),
    [
        ({"cpu_s": 52.5, "anonymous": 60 * MIB}, Outcome.TIMEOUT, "2.5 s of CPU, its limit is 2 s"),
        ({"cpu_s": 50, "anonymous": 260 * MIB}, Outcome.MEMORY, f"its limit is {100 * MIB}"),
        ({"cpu_s": 50, "anonymous": 60 * MIB, "shared": 200 * MIB}, Outcome.MEMORY, f"its limit is {100 * MIB}"),
    ],
    ids=["processor time", "private memory", "shared memory"],
)
def test_more_than_the_limit_ends_the_job_with_both_figures(cgroup, tmp_path, used, outcome, words):
    meter = Meter(tmp_path)
    cgroup.say(**used)
    found, reason = meter.excess(JOB)
    assert found is outcome
    assert words in reason


@pytest.fixture
def second(tmp_path):
    made = Version2(tmp_path)
    made.say(cpu_s=50, anonymous=60 * MIB, kernel=kernel(20 * MIB, 8 * MIB))
    return made


def test_page_tables_and_other_memory_of_the_kernel_count_as_the_jobs(second, tmp_path):
    meter = Meter(tmp_path)
    second.say(cpu_s=50, anonymous=60 * MIB, kernel=kernel(72 * MIB, 8 * MIB))
    assert meter.excess(JOB) is None
    second.say(cpu_s=50, anonymous=60 * MIB, kernel=kernel(260 * MIB, 8 * MIB))
    outcome, reason = meter.excess(JOB)
    assert outcome is Outcome.MEMORY
    assert f"held {176 * MIB} bytes" in reason


def test_names_of_files_that_the_kernel_keeps_are_not_the_jobs(second, tmp_path):
    meter = Meter(tmp_path)
    second.say(cpu_s=50, anonymous=60 * MIB, kernel=kernel(460 * MIB, 440 * MIB))
    assert meter.excess(JOB) is None


def test_files_in_the_scratch_space_are_not_memory(cgroup, tmp_path):
    meter = Meter(tmp_path)
    job = wire.Run(
        job_id="j", epoch=1, wall_s=9, cpu_s=2, memory=32 * MIB, tmp=500 * MIB, output=1, result=1, processes=4
    )
    cgroup.say(cpu_s=50, anonymous=60 * MIB, shared=400 * MIB)
    assert meter.excess(job) is None


def test_what_was_used_together_is_told_but_for_what_the_next_child_may_have_had(cgroup, tmp_path):
    meter = Meter(tmp_path)
    cgroup.say(cpu_s=51, anonymous=150 * MIB)
    assert meter.excess(JOB) is None
    cgroup.say(cpu_s=51.5, anonymous=70 * MIB)
    used = meter.used()
    assert used.max_rss_bytes == 90 * MIB
    assert used.cpu_s == pytest.approx(1.4)
    meter.renew()
    assert meter.used() == Usage()


def test_what_a_call_of_a_chunk_used_counts_from_the_first_look_at_it(cgroup, tmp_path):
    meter = Meter(tmp_path)
    cgroup.say(cpu_s=51, anonymous=60 * MIB)
    assert meter.used(1).cpu_s == 0, "nobody has looked at it yet"
    assert meter.excess(JOB, 1) is None
    cgroup.say(cpu_s=51.8, anonymous=60 * MIB)
    assert meter.used(1).cpu_s == pytest.approx(0.7)


def test_an_idle_worker_is_the_new_measure(cgroup, tmp_path):
    meter = Meter(tmp_path)
    cgroup.say(cpu_s=90, anonymous=300 * MIB)
    meter.renew()
    assert meter.excess(JOB) is None


def test_where_nothing_can_be_read_there_is_no_verdict(tmp_path):
    assert Counters(tmp_path).read() is None
    assert Meter(tmp_path).excess(JOB) is None
    assert Meter(tmp_path).used() == Usage()
