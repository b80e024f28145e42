"""CPU time of the start of a worker without preloaded modules, until it could get its first job.

    python -m benchmarks.starts [IMAGE ...] [--rounds N] [--preload MODULES] [--engine docker|oci|both]

A start is the container, runner, zygote and first child (until Ready), then the daemon's self-test, the lockdown probe,
until Freed. What is counted is the CPU time of the worker's cgroup, which every process of
it counts to; with oci also that of runc, which is a child of this process. Images and engines take turns; figures are
medians of the rounds. Needs root for oci.
"""

import argparse
import contextlib
import itertools
import resource
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.worker import IMAGE, LIMITS, Worker
from pool import wire
from pool.daemon import self_tests
from pool.engines.base import Engine
from pool.engines.docker import DockerEngine
from pool.engines.oci import OciEngine
from tests.support.daemons import IMAGE_DIR

ENGINES = ("docker", "oci")
PARTS = ("until Ready", "lockdown probe", "all of it", "runc")


def measure(engine: Engine, image: str, preload: str) -> list[float]:
    """Milliseconds, by PARTS."""
    runc = _children_s()
    worker = Worker(engine, image=image, preload=preload)
    try:
        runc = _children_s() - runc
        check = self_tests.StartCheck(sources="", limits=LIMITS)
        check.take_ready(worker.ready)
        reached = [0.0, worker.cpu_s()]
        while check.test is not None:
            worker.link.send_multipart(wire.encode(check.test.run, check.test.payload))
            _pass(worker, check)
            reached.append(worker.cpu_s())
    finally:
        worker.close()
    spent = [after - before for before, after in itertools.pairwise(reached)]
    return [each * 1000 for each in (*spent, reached[-1], runc)]


def _pass(worker: Worker, check: self_tests.StartCheck) -> None:
    """Raises StartFailed if a self-test is not passed."""
    while True:
        message, payload = wire.decode(wire.from_runner, worker.link.recv_multipart())
        if isinstance(message, wire.Done):
            check.check_done(message, payload)
        elif isinstance(message, wire.Freed):
            check.check_freed(message)
            return


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def _engines(names: Sequence[str], images: Sequence[str]) -> Iterator[dict[str, Engine]]:
    with tempfile.TemporaryDirectory(prefix="pool-oci-") as directory, contextlib.ExitStack() as stack:
        engines: dict[str, Engine] = {}
        for name in names:
            engine: Engine = DockerEngine() if name == "docker" else OciEngine(Path(directory), IMAGE_DIR)
            engines[name] = engine
            stack.callback(engine.close)
            engine.facts()
            for image in images:
                engine.image(image)
        yield engines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", default=[IMAGE])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--preload", default="", help="modules, comma-separated")
    parser.add_argument("--engine", choices=(*ENGINES, "both"), default="both")
    options = parser.parse_args(arguments)
    names = ENGINES if options.engine == "both" else (options.engine,)
    with _engines(names, options.images) as engines:
        arms = [(name, image) for name in names for image in options.images]
        found: dict[tuple[str, str], list[list[float]]] = {arm: [] for arm in arms}
        for _ in range(options.rounds):
            for name, image in arms:
                found[name, image].append(measure(engines[name], image, options.preload))
    print(f"CPU time in ms, medians of {options.rounds}\n\n| engine, image | {' | '.join(PARTS)} |")
    print("|---|" + "---:|" * len(PARTS))
    for (name, image), rows in found.items():
        medians = [statistics.median(column) for column in zip(*rows, strict=True)]
        print(f"| {name}, {image} | " + " | ".join(f"{each:.0f}" for each in medians) + " |")


if __name__ == "__main__":
    main()
