"""What one job costs, wall clock of the caller, for each way of running code that came as text.

    in-process            compile and exec here: no isolation, the floor
    subprocess            a fresh Python for each job: no isolation
    process pool          a warm ProcessPoolExecutor: no isolation
    docker run            a fresh container of the worker's image for each job
    pool, max_jobs 1      the warm pool, each container used once
    pool, max_jobs 100    the warm pool
    5 ms apart            the same, the next job 5 ms after the last one is back
    back to back          the same, the next job the moment the last one is back

Nothing here asserts on time; report.py makes the table. A round of the pool begins, untimed, with workers that have
been idle for PAUSE_S, as they are in a loop that computes between its jobs. What clearing up and refilling cost when
nobody computes shows in the rows without this pause, and in the jobs a second that a closed loop gets.
"""

import multiprocessing
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.daemon import IMAGE, Daemon
from benchmarks.jobs import JOBS, BenchJob, call, preload
from pool import Client, JobResult, Limits

pytestmark = pytest.mark.benchmark

QUICK_ROUNDS = 200
SUBPROCESS_ROUNDS = 30
DOCKER_ROUNDS = 10
SINGLE_ROUNDS = 30
LOOP_JOBS = 20
PAUSE_S = 0.1
SHORT_PAUSE_S = 0.005
LIMITS = Limits(wall_s=20)

T = TypeVar("T")


@pytest.fixture(params=JOBS, ids=lambda job: job.name)
def job(request: pytest.FixtureRequest) -> BenchJob:
    chosen: BenchJob = request.param
    return chosen


@pytest.fixture(scope="module")
def process_pool() -> Iterator[ProcessPoolExecutor]:
    spawn = multiprocessing.get_context("spawn")  # this process has threads
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=preload) as executor:
        yield executor


class Bench:
    """One row of the table: the job is its group, the way its case, and the answer is checked."""

    def __init__(self, benchmark: BenchmarkFixture, job: BenchJob) -> None:
        self._benchmark = benchmark
        self._expected = pytest.approx(call(job.source))
        benchmark.group = job.name

    def measure(
        self, case: str, once: Callable[[], float], *, rounds: int, setup: Callable[[], None] | None = None
    ) -> None:
        self._benchmark.extra_info["case"] = case
        answer = pedantic(self._benchmark, once, rounds=rounds, warmup=2, setup=setup)
        assert answer == self._expected

    def note(self, results: list[JobResult]) -> None:
        """Where the time of the pool's jobs went, by its own account."""
        names = ("queue_ms", "dispatch_ms", "run_ms", "collect_ms", "total_ms")
        parts = {name: statistics.median(getattr(each.timings, name) for each in results) for name in names}
        self._benchmark.extra_info["p50_ms"] = parts
        self._benchmark.extra_info["starts"] = dict(Counter(str(each.start) for each in results))


def pedantic(
    benchmark: BenchmarkFixture,
    once: Callable[[], T],
    *,
    rounds: int,
    warmup: int,
    setup: Callable[[], None] | None = None,
) -> T:
    """The plugin's own, which has no types."""
    answer: T = benchmark.pedantic(once, setup=setup, rounds=rounds, warmup_rounds=warmup)  # type: ignore[no-untyped-call]
    return answer


@pytest.fixture
def bench(benchmark: BenchmarkFixture, job: BenchJob) -> Bench:
    return Bench(benchmark, job)


def run_program(command: list[str]) -> float:
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


def run_in_pool(client: Client, pool: str, source: str, *, results: list[JobResult]) -> float:
    result = client.run(source, entry="main", limits=LIMITS, pool=pool)
    results.append(result)
    if not isinstance(result.value, float):
        pytest.fail(f"{result.outcome}: {result.reason or result.error}")
    return result.value


def pause(daemon: Daemon, pool: str) -> None:
    daemon.wait_idle(pool)
    time.sleep(PAUSE_S)


def test_in_process(bench: Bench, job: BenchJob) -> None:
    preload()
    bench.measure("in-process", partial(call, job.source), rounds=QUICK_ROUNDS)


def test_subprocess(bench: Bench, job: BenchJob) -> None:
    command = [sys.executable, "-c", job.script]
    bench.measure("subprocess", partial(run_program, command), rounds=SUBPROCESS_ROUNDS)


def test_process_pool(bench: Bench, job: BenchJob, process_pool: ProcessPoolExecutor) -> None:
    bench.measure("process pool", lambda: process_pool.submit(call, job.source).result(), rounds=QUICK_ROUNDS)


def test_docker_run(bench: Bench, job: BenchJob) -> None:
    command = ["docker", "run", "--rm", "--pull", "never", "--network", "none"]
    command += ["--entrypoint", "/usr/bin/python3", IMAGE, "-c", job.script]
    bench.measure("docker run", partial(run_program, command), rounds=DOCKER_ROUNDS)


def test_pool_max_jobs_1(bench: Bench, job: BenchJob, daemon: Daemon, client: Client) -> None:
    results: list[JobResult] = []
    once = partial(run_in_pool, client, "single", job.source, results=results)
    bench.measure("pool, max_jobs 1", once, rounds=SINGLE_ROUNDS, setup=partial(pause, daemon, "single"))
    bench.note(results)
    assert len({each.container for each in results}) == len(results)


def test_pool_max_jobs_100(bench: Bench, job: BenchJob, daemon: Daemon, client: Client) -> None:
    daemon.wait_idle("single")
    results: list[JobResult] = []
    once = partial(run_in_pool, client, "reuse", job.source, results=results)
    bench.measure("pool, max_jobs 100", once, rounds=QUICK_ROUNDS, setup=partial(pause, daemon, "reuse"))
    bench.note(results)


def test_pool_5_ms_apart(bench: Bench, job: BenchJob, daemon: Daemon, client: Client) -> None:
    daemon.wait_idle("reuse")
    results: list[JobResult] = []
    once = partial(run_in_pool, client, "reuse", job.source, results=results)
    bench.measure("5 ms apart, max_jobs 100", once, rounds=QUICK_ROUNDS, setup=partial(time.sleep, SHORT_PAUSE_S))
    bench.note(results)


def test_pool_back_to_back(bench: Bench, job: BenchJob, daemon: Daemon, client: Client) -> None:
    daemon.wait_idle("reuse")
    results: list[JobResult] = []
    once = partial(run_in_pool, client, "reuse", job.source, results=results)
    bench.measure("back to back, max_jobs 100", once, rounds=QUICK_ROUNDS)
    bench.note(results)


@pytest.mark.parametrize("pool", ["single", "reuse"])
def test_sustained(benchmark: BenchmarkFixture, pool: str, daemon: Daemon, client: Client) -> None:
    """A closed loop: the next job as soon as the last is back, whether or not a worker is idle by then."""
    daemon.wait_idle(pool)
    source = JOBS[0].source
    benchmark.group = "sustained"
    benchmark.extra_info.update(case=f"pool, max_jobs {1 if pool == 'single' else 100}", jobs=LOOP_JOBS)

    def loop() -> list[JobResult]:
        results: list[JobResult] = []
        for _ in range(LOOP_JOBS):
            run_in_pool(client, pool, source, results=results)
        return results

    results = pedantic(benchmark, loop, rounds=1, warmup=0)
    benchmark.extra_info["starts"] = dict(Counter(str(each.start) for each in results))
