"""The CPU time of the daemon alone for each job: workers answer at once, so only the daemon works.

    python -m benchmarks.dispatch [--jobs N] [--rounds N]

Needs no Docker. The workers only answer and run nothing (`answering_worker.py`). The jobs come from one
client that keeps some in flight. There is a daemon for each durability, and they take turns.
"""

import argparse
import statistics
import subprocess
import sys
from collections import deque
from contextlib import ExitStack
from itertools import islice, repeat
from pathlib import Path

from benchmarks.acceptance import daemon
from pool import assets, config, sources
from pool.client import Client
from pool.daemon.daemon import Daemon
from pool.daemon.systemd import setup_logging
from pool.daemon.worker_spec import LINK_TARGET
from pool.engines.base import WorkerSpec
from pool.testing import ProcessContainer, ProcessEngine

_DURABILITIES = ("none", "crash")
_WORKERS, _IN_FLIGHT = 2, 8
_POOL = {"size": {"min": _WORKERS, "max": _WORKERS}, "preload": {"modules": []}, "recycle": {"max_jobs": 1_000_000}}
_JOB = "result = 1"
_ROOT = Path(__file__).parents[1]


class _StubEngine(ProcessEngine):
    """A daemon whose workers only answer."""

    def __init__(self) -> None:
        super().__init__(sources=Path())  # no runner is started
        self._sources = sources.digest(assets.runner_tree())

    def launch(self, spec: WorkerSpec) -> ProcessContainer:
        link = next(mount.source for mount in spec.mounts if mount.target == LINK_TARGET) / "link.sock"
        command = [sys.executable, "-m", "benchmarks.answering_worker", str(link), self._sources]
        process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.DEVNULL)
        return ProcessContainer(process, link.parent / "scratch")


def _serve(config_file: Path) -> None:
    settings = config.load(config_file)
    setup_logging(settings.daemon)
    sys.exit(Daemon(settings, make_engine=_StubEngine).run())


def _cpu_s(pid: int) -> float:
    """Of all threads of a process so far."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


def _run(client: Client, jobs: int) -> None:
    asked = repeat(_JOB, jobs)
    flying = deque(client.submit(code) for code in islice(asked, _IN_FLIGHT))
    while flying:
        client.result(flying.popleft())
        flying.extend(client.submit(code) for code in islice(asked, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with ExitStack() as stack:
        arms = {each: stack.enter_context(daemon(each, pool=_POOL, engine=__spec__.name)) for each in _DURABILITIES}
        clients = {each: stack.enter_context(running.client()) for each, running in arms.items()}
        for running in arms.values():
            running.wait_idle()
        found: dict[str, list[float]] = {each: [] for each in arms}
        for number in range(options.rounds + 1):
            for each, running in arms.items():
                pid = running.process.pid
                before = _cpu_s(pid)
                _run(clients[each], options.jobs)
                if number:  # the first round warms up
                    found[each].append((_cpu_s(pid) - before) * 1e6 / options.jobs)
    for each, spent in found.items():
        us = statistics.median(spent)
        print(f"durability {each:6} {us:6.0f} us of CPU a job, {1e6 / us:6.0f} jobs/s of one core")


if __name__ == "__main__":
    if "--config" in sys.argv:
        _serve(Path(sys.argv[-1]))
    else:
        main()
