"""What an argument costs by its size: the time of a job, and the CPU time of client, daemon and worker together.

    python -m benchmarks.arguments [--rounds 10] [DIRECTORY=IMAGE ...]

Each DIRECTORY is a checkout whose daemon takes part, with the image that was built from it; without any, this one does.
They take turns in each round, so their ratios do not depend on the load of the machine. The job sums the array up.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import daemon as daemons
from benchmarks.copies import CONFIG, in_container
from benchmarks.worker import cpu_file, cpu_s
from pool.client import Client

SIZES = {"1 KB": 1_000, "100 KB": 100_000, "1 MB": 1_048_576, "8 MB": 8_000_000, "80 MB": 80_000_000}
JOB = "def main(x):\n    return float(x.sum())\n"
_TICKS_PER_S = 100
#: Between two jobs: what a job costs after its answer is counted too.
_SETTLE_S = 0.1


class Arm(NamedTuple):
    name: str
    client: Client
    pid: int  #: of the daemon
    cgroup: Path  #: of its worker

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / _TICKS_PER_S + cpu_s(self.cgroup) + time.process_time()

    def measure(self, array: np.ndarray) -> tuple[float, float]:
        """Milliseconds of the job, and of CPU."""
        before, began = self.cpu_s(), time.monotonic()
        result = self.client.run(JOB, entry="main", args=[array])
        took = time.monotonic() - began
        assert result.ok, result
        time.sleep(_SETTLE_S)
        return took * 1000, (self.cpu_s() - before) * 1000


def measure(arms: Sequence[Arm], rounds: int) -> None:
    """Print a row for each size and arm."""
    print("| argument | daemon | ms | CPU ms | ms / first | CPU / first |\n|---|---|---:|---:|---:|---:|")
    for title, size in SIZES.items():
        array, found = np.ones(size // 8), {arm.name: list[tuple[float, float]]() for arm in arms}
        for turn in range(rounds + 1):
            for arm in arms if turn % 2 else reversed(arms):
                found[arm.name].append(arm.measure(array))
        middle = {name: [*map(statistics.median, zip(*each[1:], strict=True))] for name, each in found.items()}
        first = middle[arms[0].name]
        for name, (ms, cpu_ms) in middle.items():
            print(f"| {title} | {name} | {ms:.1f} | {cpu_ms:.1f} | {ms / first[0]:.2f} | {cpu_ms / first[1]:.2f} |")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", metavar="DIRECTORY=IMAGE")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--durability", default="crash")
    options = parser.parse_args(arguments)
    config = CONFIG.format(durability=options.durability)
    with contextlib.ExitStack() as stack:
        arms = []
        for each in options.checkouts or [f"{Path.cwd()}={daemons.IMAGE}"]:
            directory, _, image = each.partition("=")
            started = daemons.started(config, ("default",), 1, image=image, checkout=Path(directory))
            daemon = stack.enter_context(started)
            client = stack.enter_context(Client(f"ipc://{daemon.submit}", timeout=300))
            arms.append(Arm(Path(directory).name, client, daemon.process.pid, cpu_file(in_container(daemon)[0])))
        measure(arms, options.rounds)


if __name__ == "__main__":
    main()
