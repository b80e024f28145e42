"""How close a worker comes to a bare fork: CPU time and jobs per second of workers against a loop that only forks.

    python -m benchmarks.floor [IMAGE ...] [--jobs N] [--rounds N] [--json FILE]

Several images are compared in one run: build each with `pool-admin image build --tag`. The arms take turns, so that a
busy host is unfair to none, and each figure is the median of the rounds' ratios to the fork loop of the same round.

    fork loop   a process of the worker's image, with numpy and pandas: fork, compile and run the text, exit
    IMAGE       workers as the daemon starts them, driven by this program alone
    pool        a daemon with such workers, and a client with twice as many jobs in flight; CPU time of all of these.
                Its image is that of POOL_BENCH_IMAGE.

Each arm has a process or a worker for each core, all of them busy for a round.
"""

import argparse
import os
import secrets
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import zmq

from benchmarks.daemon import SIZE, pool, started
from benchmarks.ratios import write_ratios
from benchmarks.worker import IMAGE, OWNER, Worker, cpu_file, cpu_s
from pool import Client, JobResult, wire
from pool.engines.docker import DockerEngine
from pool.model import Outcome

#: One worker a core, up to as many as the pool has.
CORES = min(SIZE, os.cpu_count() or 1)
POOL = "steady"
POOLS = {POOL: pool(recycle={"max_jobs": 100_000})}
PRELOAD = "numpy,pandas"
NOOP = "def main(x):\n    return x\n"
STRATEGY = """
import numpy as np
import pandas as pd

def main(x):
    day = np.arange(1000)
    close = pd.Series(100 + 10 * np.sin(day / 40) + 3 * np.sin(day / 7))
    fast, slow = close.rolling(10).mean(), close.ewm(span=50).mean()
    change = close.diff()
    gain, loss = change.clip(lower=0).rolling(14).mean(), (-change.clip(upper=0)).rolling(14).mean()
    strength = 100 - 100 / (1 + gain / loss.replace(0, np.nan))
    held = ((fast > slow) & (strength < 70)).astype(float).shift(1).fillna(0.0)
    returns = held * close.pct_change().fillna(0.0) - 0.0005 * held.diff().abs().fillna(0.0)
    equity = (1 + returns).cumprod()
    monthly = returns.groupby(day // 21).sum()
    return [float(returns.mean() / returns.std() * 252**0.5), float((equity / equity.cummax()).min()), len(monthly)]
"""
JOBS = {"no-op": NOOP, "strategy": STRATEGY}
#: Run by the image's own Python. Reads the name of a job and a number of forks, answers when all are done.
FORK_LOOP = f"""
import gc, os, sys
import numpy, pandas
JOBS = {JOBS!r}
def call(source):
    names = {{"__name__": "job"}}
    exec(compile(source, "job", "exec"), names)
    return names["main"](1)
for source in [*JOBS.values()] * 12:
    call(source)
gc.collect()
gc.freeze()
print(flush=True)
for line in sys.stdin:
    name, count = line.split()
    for _ in range(int(count)):
        pid = os.fork()
        if pid == 0:
            call(JOBS[name])
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    print(flush=True)
"""


class Arm(Protocol):
    """A way to run jobs on every core."""

    def run(self, job: str, count: int) -> None: ...
    def cpu_s(self) -> float: ...
    def close(self) -> None: ...


class ForkLoop:
    """One container for each core."""

    def __init__(self, image: str) -> None:
        self._names = [f"{OWNER}-{secrets.token_hex(3)}" for _ in range(CORES)]
        start = ["docker", "run", "-i", "--rm", "--pull", "never", "--network", "none"]
        program = ["--entrypoint", "/usr/bin/python3", image, "-c", FORK_LOOP]
        self._processes = [
            subprocess.Popen(
                [*start, "--name", name, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            )
            for name in self._names
        ]
        self._wait()
        self._cgroups = [cpu_file(_pid(name)) for name in self._names]

    def run(self, job: str, count: int) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.write(f"{job} {count // CORES}\n")
        self._wait()

    def _wait(self) -> None:
        for process in self._processes:
            if process.stdout is None or not process.stdout.readline():
                raise RuntimeError("a fork loop has ended")

    def cpu_s(self) -> float:
        return sum(map(cpu_s, self._cgroups))

    def close(self) -> None:
        for process in self._processes:
            process.communicate()


def _pid(name: str) -> int:
    command = ["docker", "inspect", "--format", "{{.State.Pid}}", name]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


class Workers:
    """One worker for each core. A worker gets its next job the moment it is free."""

    def __init__(self, engine: DockerEngine, image: str) -> None:
        self._workers = [Worker(engine, preload=PRELOAD, image=image) for _ in range(CORES)]
        self._poller = zmq.Poller()
        for worker in self._workers:
            self._poller.register(worker.link, zmq.POLLIN)

    def run(self, job: str, count: int) -> None:
        code = JOBS[job].encode()
        left = dict.fromkeys(self._workers, count // CORES)
        for worker in left:
            worker.send(code)
        while left:
            ready = dict(self._poller.poll())
            for worker in [worker for worker in left if worker.link in ready]:
                if isinstance(worker.hear(), wire.Freed):
                    left[worker] -= 1
                    if left[worker]:
                        worker.send(code)
                    else:
                        del left[worker]

    def cpu_s(self) -> float:
        return sum(worker.cpu_s() for worker in self._workers)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


class Pool:
    """What a user has: client, daemon and workers, in the default configuration."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._daemon = self._open.enter_context(started(POOLS))
        self._client = self._open.enter_context(Client(self._daemon.endpoint))
        self._threads = self._open.enter_context(ThreadPoolExecutor(2 * SIZE))
        self._cgroups = [cpu_file(_pid(name)) for name in self._daemon.containers(POOL)]

    def run(self, job: str, count: int) -> None:
        for done in self._threads.map(self._once, [JOBS[job]] * count):
            if done.outcome is not Outcome.OK:
                raise RuntimeError(f"the job ended with {done.outcome}: {done.reason}")

    def _once(self, source: str) -> JobResult:
        return self._client.run(source, entry="main", args=[1], pool=POOL)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._daemon.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        daemon_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return sum(map(cpu_s, self._cgroups)) + daemon_s + time.process_time()

    def close(self) -> None:
        self._open.close()


@dataclass(slots=True)
class Figures:
    """Of one arm and job: a sample for each round."""

    cpu_ms: list[float] = field(default_factory=list)
    jobs_s: list[float] = field(default_factory=list)


def measure(arms: dict[str, Arm], *, jobs: int, rounds: int) -> dict[tuple[str, str], Figures]:
    """By job and arm. A first round, which is not counted, warms all of them."""
    figures = {(job, name): Figures() for job in JOBS for name in arms}
    for number in range(rounds + 1):
        for (job, name), found in figures.items():
            arm, before, started = arms[name], arms[name].cpu_s(), time.perf_counter()
            arm.run(job, jobs)
            if number:
                found.jobs_s.append(jobs / (time.perf_counter() - started))
                found.cpu_ms.append((arm.cpu_s() - before) * 1e3 / jobs)
    return figures


def times(ones: list[float], others: list[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def table(figures: dict[tuple[str, str], Figures], floor: str) -> str:
    lines = ["| job | arm | CPU a job | / fork loop | jobs/s | / fork loop |", "|---|---|---:|---:|---:|---:|"]
    for (job, name), found in figures.items():
        least = figures[job, floor]
        cpu, rate = statistics.median(found.cpu_ms), statistics.median(found.jobs_s)
        more, share = times(found.cpu_ms, least.cpu_ms), times(found.jobs_s, least.jobs_s)
        lines.append(f"| {job} | {name} | {cpu:.2f} ms | {more:.2f} | {rate:.0f} | {share:.2f} |")
    return "\n".join(lines)


def ratios(figures: dict[tuple[str, str], Figures], floor: str) -> dict[str, float]:
    """Of the arm `pool`, by the names in baseline.json."""
    found = {}
    for job in JOBS:
        pool, least = figures[job, "pool"], figures[job, floor]
        found[f"{job}: CPU of pool / fork loop"] = times(pool.cpu_ms, least.cpu_ms)
        found[f"{job}: jobs/s of pool / fork loop"] = times(pool.jobs_s, least.jobs_s)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", default=[IMAGE])
    parser.add_argument("--jobs", type=int, default=40, help="for each round, arm and kind of job")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the ratios of the pool there")
    options = parser.parse_args()
    engine = DockerEngine()
    floor = "fork loop"
    arms: dict[str, Arm] = {}
    try:
        arms[floor] = ForkLoop(options.images[0])
        for image in options.images:
            arms[image] = Workers(engine, image)
        arms["pool"] = Pool()
        figures = measure(arms, jobs=options.jobs, rounds=options.rounds)
        print(table(figures, floor))
        if options.json:
            write_ratios(options.json, ratios(figures, floor))
    finally:
        for arm in arms.values():
            arm.close()
        for left in engine.find(owner=OWNER):
            left.container.kill()
        engine.close()


if __name__ == "__main__":
    main()
