"""What layer 4 costs a job: CPU time and latency of one worker, by level of isolation, in one run.

    python benchmarks/isolation.py [--jobs N]

A worker container is started as the daemon would, and is driven over its link by this program alone: what is
counted is the work of the worker and of the kernel for it, as CPU time of the container's cgroup. The levels
take turns, so that a busy host is unfair to none. `none` is a plain fork, which no configuration can select.

    answered   from the job on the link to its answer: a parked child was waiting
    free       from the job on the link until the next child is parked: what a job costs that finds none
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from pool import values, wire
from pool.engines.base import Mount, WorkerSpec
from pool.engines.docker import DockerContainer, DockerEngine

LEVELS = ("none", "plain", "namespaces")
PRELOADS = ("", "numpy,pandas")
CODE = b"def main(x):\n    return x\n"
LIMITS = {
    "wall_s": 10,
    "cpu_s": 10,
    "memory": 256 << 20,
    "tmp": 64 << 20,
    "output": 1 << 20,
    "result": 1 << 20,
    "processes": 32,
}
_OWNER = f"bench-{secrets.token_hex(4)}"


class Worker:
    """One container, and this end of its link."""

    def __init__(self, engine: DockerEngine, level: str, preload: str) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="bench."))
        self._home.chmod(0o711)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._link = self._context.socket(zmq.PAIR)
        path = self._home / "link.sock"
        self._link.bind(f"ipc://{path}")
        path.chmod(0o666)
        self._container = engine.launch(self._spec(level, preload))
        self._epoch = 0
        self._cgroup = _cpu_file(self._container)
        self._arguments = [bytes(frame) for frame in values.encode(((1,), {}), max_bytes=4096)]
        while not isinstance(self._hear(), wire.Ready):
            pass

    def _spec(self, level: str, preload: str) -> WorkerSpec:
        command = ["--link", "/run/pool/link.sock", "--scratch", "/tmp", "--scratch", "/dev/shm", "--isolation", level]
        return WorkerSpec(
            worker_id=f"{level}-{secrets.token_hex(3)}",
            pool="bench",
            owner=_OWNER,
            instance=_OWNER,
            image="pool-worker:latest",
            runtime=None,
            uid=2_000_200_000,
            command=tuple([*command, "--preload", preload] if preload else command),
            mounts=(Mount(source=self._home, target="/run/pool"),),
            memory_bytes=512 << 20,
            cpus=2.0,
            processes=44,
            tmp_bytes=64 << 20,
            tmp_inodes=4096,
            nofile=256,
        )

    def run(self) -> tuple[float, float]:
        """Seconds until the answer, and until the worker is free."""
        self._epoch += 1
        job = wire.Run(job_id=f"job-{self._epoch}", epoch=self._epoch, entry="main", **LIMITS)  # type: ignore[arg-type]
        sent = time.perf_counter()
        self._link.send_multipart(wire.encode(job, [CODE, b"", *self._arguments]))
        while not isinstance(self._hear(), wire.Done):
            pass
        answered = time.perf_counter() - sent
        while not isinstance(self._hear(), wire.Freed):
            pass
        return answered, time.perf_counter() - sent

    def cpu_s(self) -> float:
        """CPU time of everything that was ever in the container."""
        text = self._cgroup.read_text(encoding="ascii")
        if self._cgroup.name == "cpu.stat":
            return int(text.split()[1]) / 1e6
        return int(text) / 1e9

    def close(self) -> None:
        self._container.kill()
        self._context.destroy(linger=0)
        shutil.rmtree(self._home)

    def _hear(self) -> wire.FromRunner:
        if not self._link.poll(30_000):
            raise TimeoutError(f"the worker is silent: {self._container.diagnose()}")
        message, _ = wire.decode(wire.from_runner, self._link.recv_multipart())
        if isinstance(message, wire.Broken):
            raise RuntimeError(message.reason)  # noqa: TRY004 - it is what the worker says
        return message


def _cpu_file(container: DockerContainer) -> Path:
    for line in Path(f"/proc/{container.pid()}/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers:
            return Path("/sys/fs/cgroup/cpuacct", path.lstrip("/"), "cpuacct.usage")
        if not controllers and (found := Path("/sys/fs/cgroup", path.lstrip("/"), "cpu.stat")).exists():
            return found
    raise RuntimeError("the container has no cgroup that counts CPU time")


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
            workers[level] = Worker(engine, level, preload)
        for level in LEVELS * rounds:
            _round(workers[level], figures[level], jobs // rounds)
    finally:
        for worker in workers.values():
            worker.close()
    return figures


def _round(worker: Worker, figures: Figures, jobs: int) -> None:
    before = worker.cpu_s()
    for _ in range(jobs):
        answered, free = worker.run()
        figures.answered_ms.append(answered * 1e3)
        figures.free_ms.append(free * 1e3)
    figures.cpu_ms.append((worker.cpu_s() - before) * 1e3 / jobs)


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
        engine.sweep(owner=_OWNER, instance="")
        engine.close()


if __name__ == "__main__":
    main()
