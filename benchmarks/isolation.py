"""What layer 4 costs a job: CPU time and latency of one worker, by level of isolation, in one run.

    python -m benchmarks.isolation [--jobs N]

A worker container is started as the daemon would, and is driven over its link by this program alone: what is
counted is the work of the worker and of the kernel for it, as CPU time of the container's cgroup. The levels
take turns, so that a busy host is unfair to none. `none` is a plain fork, which no configuration can select.

    answered   from the job on the link to its answer: a parked child was waiting
    free       from the job on the link until the next child is parked: what a job costs that finds none
"""

import argparse
import statistics
import time
from dataclasses import dataclass, field

from benchmarks.worker import OWNER, Worker
from pool import wire
from pool.engines.docker import DockerEngine

LEVELS = ("none", "plain", "namespaces")
PRELOADS = ("", "numpy,pandas")
CODE = b"def main(x):\n    return x\n"


@dataclass(slots=True)
class Figures:
    """Of one level: a sample for each round or job, in milliseconds."""

    cpu_ms: list[float] = field(default_factory=list)
    answered_ms: list[float] = field(default_factory=list)
    free_ms: list[float] = field(default_factory=list)


def measure(engine: DockerEngine, preload: str, *, jobs: int, rounds: int) -> dict[str, Figures]:
    """The levels in turns, `jobs` jobs each in all."""
    figures = {level: Figures() for level in LEVELS}
    workers: dict[str, Worker] = {}
    try:
        for level in LEVELS:
            workers[level] = Worker(engine, level=level, preload=preload)
        for level in LEVELS * rounds:
            _round(workers[level], figures[level], jobs // rounds)
    finally:
        for worker in workers.values():
            worker.close()
    return figures


def _round(worker: Worker, figures: Figures, jobs: int) -> None:
    before = worker.cpu_s()
    for _ in range(jobs):
        answered, free = _run(worker)
        figures.answered_ms.append(answered * 1e3)
        figures.free_ms.append(free * 1e3)
    figures.cpu_ms.append((worker.cpu_s() - before) * 1e3 / jobs)


def _run(worker: Worker) -> tuple[float, float]:
    """Seconds until the answer, and until the worker is free."""
    sent = time.perf_counter()
    worker.send(CODE)
    while not isinstance(worker.hear(), wire.Done):
        pass
    answered = time.perf_counter() - sent
    while not isinstance(worker.hear(), wire.Freed):
        pass
    return answered, time.perf_counter() - sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=400, help="for each level and preload")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    engine = DockerEngine()
    print("| preload | isolation | CPU a job | over none | answered p50 | free p50 |")
    print("|---|---|---|---|---|---|")
    try:
        for preload in PRELOADS:
            figures = measure(engine, preload, jobs=options.jobs, rounds=options.rounds)
            least = statistics.median(figures["none"].cpu_ms)
            for level, found in figures.items():
                cpu, answered, free = map(statistics.median, (found.cpu_ms, found.answered_ms, found.free_ms))
                print(
                    f"| {preload or 'none'} | {level} | {cpu:.2f} ms | {cpu - least:+.2f} ms "
                    f"| {answered:.2f} ms | {free:.2f} ms |"
                )
    finally:
        for left in engine.find(owner=OWNER):
            left.container.kill()
        engine.close()


if __name__ == "__main__":
    main()
