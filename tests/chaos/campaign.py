"""A campaign: a daemon on the real Engine, client processes, and faults one after the other until the time is over."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Self

import docker
import psutil
from docker.errors import DockerException
from docker.utils import kwargs_from_env

from pool.errors import PoolError
from tests.chaos.checker import Verdict, check
from tests.chaos.faults import Fault, strike
from tests.chaos.history import History, read
from tests.chaos.submitter import ended
from tests.chaos.witness import Witness
from tests.support.daemons import DaemonProcess

SUBMITTERS = 3
#: What is left to do when the faults have ended: results, and the pool back at its size.
QUIET_S = 180.0
#: The longest time in which an Engine ends or starts.
ENGINE_S = 60.0
#: The longest time without a fault, in which the pool may be away.
APART_S = 5.0
#: Results are kept until they are asked for a second time, at the end.
KEPT_S = 86_400
#: That the daemon may have open at the end and had not at the start. The Docker SDK keeps up to 25 connections for each of
#: its clients, one for each URL.
DESCRIPTORS_MORE = 100
TEMPLATE = {
    "image": "pool-worker:latest",
    "size": {"min": 2, "max": 4},
    "recycle": {"max_jobs": 50},
    "preload": {"modules": ["numpy"]},
    "limits": {"wall_s": 30, "cpu_s": 30, "memory": "256m"},
}
Say = Callable[[str], object]


class Campaign:
    """`with Campaign(directory, seed=1) as campaign: verdict = campaign.run(60, FAULTS)`. The directory is kept."""

    def __init__(
        self,
        directory: Path,
        *,
        seed: int,
        durability: str = "crash",
        engine_pid_file: Path | None = None,
        engine_restarts: bool = True,
        job_pause_s: float = 0.0,
    ) -> None:
        """`engine_pid_file`: of the dockerd that may be frozen, and ended and started again if `engine_restarts`; the file
        gets its new pid. None: neither. `job_pause_s`: of each of the threads that submit, after each job.
        """
        self.directory, self.seed, self.engine_restarts = directory, seed, engine_restarts
        self.engine_pid_file, self.job_pause_s = engine_pid_file, job_pause_s
        self.engine_pid = int(engine_pid_file.read_text()) if engine_pid_file is not None else 0
        self.records = directory / "history"
        self.records.mkdir(parents=True)
        self.engine = docker.APIClient(version="auto", timeout=30, **kwargs_from_env())
        self.daemon = DaemonProcess(
            {"default": TEMPLATE}, engine="docker", home=directory / "d", durability=durability, drain_timeout_s=5,
            log_level="info", result_ttl_s=KEPT_S, result_bytes="1g",
        )  # fmt: skip
        self.submitters: list[subprocess.Popen[bytes]] = []
        self.recoveries: list[float] = []  #: seconds from the start of a new daemon to a daemon that runs
        self.name = secrets.token_hex(4)  #: in the ids of its jobs
        self._submitters = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.daemon.home.mkdir()
        self.history = self._stack.enter_context(History(self.records, "campaign"))
        self.witness = self._stack.enter_context(Witness(self.name))
        self._stack.callback(self._end)
        self.daemon.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(
        self,
        seconds: float,
        faults: dict[Fault, int],
        *,
        least_faults: int = 0,
        least_jobs: int = 0,
        say: Say = print,
        pause_s: float = 0.3,
        apart: int = 0,
    ) -> Verdict:
        """Make at least so many faults, for so long, until so many jobs have ended; then wait for all ends, and check.

        `apart`: executions between two faults, if they come within APART_S.
        """
        rng = Random(self.seed)
        descriptors = self._descriptors()
        self.submitters = [self._submitter() for _ in range(SUBMITTERS)]
        began, told, struck, ends = time.monotonic(), 0.0, 0, 0
        while (passed := time.monotonic() - began) < seconds or struck < least_faults or ends < least_jobs:
            time.sleep(rng.uniform(0, 2 * pause_s))
            self._let_run(apart)
            struck += strike(self, rng.choices(list(faults), list(faults.values()))[0], rng)
            if passed - told > 10:
                told, ends = passed, self._jobs_ended()
                say(f"{passed:.0f} s: {ends} jobs ended, {struck} faults")
        say("no more faults; waiting for the ends of all jobs")
        self._settle(descriptors)
        return check(read(self.records), self.witness.seen, complete=self.witness.complete)

    # ---- what faults do ----

    def replace_submitter(self, number: int) -> str:
        old = self.submitters[number]
        _kill(old)
        self.submitters[number] = self._submitter()
        return str(old.pid)

    def restart_daemon(self, number: int) -> str:
        """End the daemon, and start the next one at once."""
        old = self.daemon.process
        old.send_signal(number)
        old.wait(QUIET_S)
        began = time.monotonic()
        self.daemon.start()
        self.recoveries.append(time.monotonic() - began)
        return str(old.pid)

    def restart_engine(self) -> str:
        old = psutil.Process(self.engine_pid)
        command, environment, place = old.cmdline(), old.environ(), old.cwd()
        old.terminate()
        old.wait(ENGINE_S)
        with (self.directory / "engine.log").open("ab") as log:
            engine = subprocess.Popen(
                command, env=environment, cwd=place, stdout=log, stderr=log, start_new_session=True
            )
        self.engine_pid, until = engine.pid, time.monotonic() + ENGINE_S
        self.engine_pid_file.write_text(f"{engine.pid}\n")
        while not self._engine_answers():
            if time.monotonic() > until:
                raise AssertionError(f"the Engine did not start again: {self.directory / 'engine.log'}")
            time.sleep(0.1)
        return str(old.pid)

    def _engine_answers(self) -> bool:
        with contextlib.suppress(DockerException, OSError):
            return bool(self.engine.ping())
        return False

    def containers(self) -> list[dict]:
        """Those of this campaign's daemon that run."""
        return self.engine.containers(filters={"label": f"pool.owner={self._owner()}"})

    # ---- parts ----

    def _let_run(self, executions: int) -> None:
        until, least = time.monotonic() + APART_S, len(self.witness.seen) + executions
        while len(self.witness.seen) < least and time.monotonic() < until:
            time.sleep(0.02)

    def _owner(self) -> str:
        return (self.daemon.state_dir / "owner").read_text().strip()

    def _submitter(self) -> subprocess.Popen[bytes]:
        self._submitters += 1
        command = [sys.executable, "-m", "tests.chaos.submitter", self.daemon.endpoint, str(self.records)]
        with (self.directory / "submitters.log").open("ab") as log:
            return subprocess.Popen(
                [*command, f"{self.name}.s{self._submitters}", str(self.seed), str(self.job_pause_s)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    def _jobs_ended(self) -> int:
        return sum(each["what"] == "end" for each in read(self.records))

    def _settle(self, descriptors: Counter[str]) -> None:
        for each in self.submitters:
            each.stdin.close()
        for each in self.submitters:
            each.wait(QUIET_S)
        self._collect()
        self._ask_again()
        self.daemon.until(self._at_rest, QUIET_S)
        self._look_for_descriptors(descriptors)
        owner = self._owner()
        self.daemon.stop()
        for thing in self._left(owner):
            self.history.add("left", thing=thing)

    def _collect(self) -> None:
        """The ends of jobs whose clients were killed."""
        records = read(self.records)
        known = {each["id"] for each in records if each["what"] in ("end", "refused", "failed")}
        for job_id in {each["id"] for each in records if each["what"] == "submit"} - known:
            with self.daemon.client() as client:
                self.history.add("end", id=job_id, **ended(client, job_id, QUIET_S))

    def _ask_again(self) -> None:
        """Each acknowledged job, a second time: results are kept."""
        acknowledged = {each["id"] for each in read(self.records) if each["what"] == "acknowledged"}
        with self.daemon.client() as client:
            for job_id in acknowledged:
                self.history.add("end", id=job_id, **ended(client, job_id, QUIET_S))

    def _at_rest(self) -> bool:
        pool = self.daemon.pool()
        idle = [each for each in pool["workers"] if each["state"] == "idle"]
        return len(idle) == len(pool["workers"]) >= pool["size"]["min"]

    def _descriptors(self) -> Counter[str]:
        """What the daemon has open, by kind."""
        kinds: Counter[str] = Counter()
        for path in Path(f"/proc/{self.daemon.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                kinds[path.readlink().name.split(":")[0].split("[")[0]] += 1
        return kinds

    def _look_for_descriptors(self, before: Counter[str]) -> None:
        """A worker has a few, and the number of workers may differ by the bounds of the pool."""
        if (more := self._descriptors() - before) and more.total() > DESCRIPTORS_MORE:
            self.history.add("left", thing=f"{more.total()} descriptors more in the daemon than before: {dict(more)}")

    def _left(self, owner: str) -> Iterator[str]:
        for each in self.engine.containers(all=True, filters={"label": f"pool.owner={owner}"}):
            yield f"container {each['Names']} ({each['State']})"
        home = str(self.daemon.home)
        yield from (
            f"mount {line.split()[1]}" for line in Path("/proc/mounts").read_text().splitlines() if home in line
        )
        left = {str(path.relative_to(self.daemon.run_dir)) for path in self.daemon.run_dir.rglob("*")}
        left -= {"lock", "journal"}  # for the next daemon
        yield from (f"in the run directory: {path}" for path in sorted(left))
        yield from (f"process {line}" for line in _processes_named(home, but={os.getpid()}))

    def _end(self) -> None:
        for each in self.submitters:
            _kill(each)
        with contextlib.suppress(PoolError, OSError, subprocess.TimeoutExpired):
            self.daemon.stop()
        self.engine.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    process.stdin.close()


def _processes_named(text: str, *, but: set[int]) -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if text in words and int(path.name) not in but:
                yield f"{path.name}: {words[:100]}"


def judged(verdict: Verdict, recoveries: Sequence[float]) -> str:
    lines = list(verdict.lines())
    if recoveries:
        ordered = sorted(recoveries)
        lines.append(f"restarts   {len(ordered)}: p50 {ordered[len(ordered) // 2]:.1f} s, longest {ordered[-1]:.1f} s")
    return "\n".join(lines)
