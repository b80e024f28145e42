"""How soon a daemon serves after `kill -9`, how soon faults of workers are noticed, and what share unequal clients get.

python -m benchmarks.reliability [--kills 20] [--faults 5] [--seconds 30]

The first two need Docker and root, because they kill and stop processes of other users.
"""

import argparse
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import docker
import psutil
from docker.utils import kwargs_from_env

from benchmarks import daemon as daemons
from pool.model import Limits, Outcome

WORKERS = 2
_POOL = {
    "size": {"min": WORKERS, "max": WORKERS},
    "recycle": {"max_jobs": 100_000},
    "preload": {"modules": []},
    "limits": {"wall_s": 600, "cpu_s": 600},
    "poison": {"kills": 0},
}
_PATIENCE_S = 120.0
_LOOK_S = 0.005
_SLEEP = "import time\ndef main(seconds): time.sleep(seconds)"
_SERVES = {"idle", "leased", "suspect"}


class Daemon(daemons.Daemon):
    """One daemon after the other in the same directories."""

    def kill_and_start(self) -> None:
        self.kill()
        self.start()

    def await_workers(self, state: str, count: int) -> list[Any]:
        """The workers in this state, once there are so many."""
        self.until(lambda: len(self.workers(state=state)) == count, every_s=_LOOK_S)
        return self.workers(state=state)

    def serves(self, worker: Any) -> bool:
        return any(each["id"] == worker["id"] and each["state"] in _SERVES for each in self.workers())


def _row(what: str, seconds: Sequence[float]) -> None:
    print(
        f"{what:52} n {len(seconds):3}   p50 {statistics.median(seconds):5.2f} s   max {max(seconds):5.2f} s",
        flush=True,
    )


# ---- kill -9 of the daemon ----


def _recovery(daemon: Daemon, kills: int) -> None:
    accepted, computed, answered, went_on = [], [], [], 0
    for number in range(kills):
        daemon.await_workers("idle", WORKERS)
        with daemon.client(timeout=_PATIENCE_S) as before:
            runs = before.submit(_SLEEP, entry="main", args=[1.5])
            daemon.await_workers("leased", 1)
        began = time.monotonic()
        daemon.kill_and_start()
        with daemon.client(timeout=_PATIENCE_S) as client:
            job_id = f"after-{number}"
            daemon.until(partial(client.submit, f"result = {number}", job_id=job_id), every_s=_LOOK_S)
            accepted.append(time.monotonic() - began)
            spent = psutil.Process(daemon.process.pid).cpu_times()
            computed.append(spent.user + spent.system)
            assert client.result(job_id).value == number
            answered.append(time.monotonic() - began)
            went_on += client.result(runs).outcome is Outcome.OK
    _row("kill -9 of the daemon, to the next acceptance", accepted)
    _row("processor time of the next daemon until then", computed)
    _row("kill -9 of the daemon, to the next result", answered)
    print(f"{'jobs that ran at the kill and ended ok':52} {went_on} of {kills}")


# ---- faults of workers ----


def _faults(sdk: docker.APIClient) -> dict[str, Callable[[str], object]]:
    def signalled(number: int) -> Callable[[str], object]:
        return lambda container: os.kill(sdk.inspect_container(container)["State"]["Pid"], number)

    return {
        "killed": signalled(signal.SIGKILL),
        "container removed": lambda container: sdk.remove_container(container, force=True),
        "stopped (SIGSTOP)": signalled(signal.SIGSTOP),
        "docker pause": sdk.pause,
    }


def _idle_worker(daemon: Daemon, strike: Callable[[str], object]) -> float:
    victim = daemon.await_workers("idle", WORKERS)[0]
    began = time.monotonic()
    strike(victim["container"])
    daemon.until(lambda: not daemon.serves(victim), every_s=_LOOK_S)
    return time.monotonic() - began


def _busy_worker(daemon: Daemon, strike: Callable[[str], object]) -> float:
    daemon.await_workers("idle", WORKERS)
    with daemon.client(timeout=_PATIENCE_S) as client:
        job_id = client.submit(_SLEEP, entry="main", args=[500], limits=Limits(wall_s=600))
        (victim,) = daemon.await_workers("leased", 1)
        began = time.monotonic()
        strike(victim["container"])
        outcome = client.result(job_id).outcome
        assert outcome is Outcome.LOST, outcome
        return time.monotonic() - began


def _detection(daemon: Daemon, rounds: int) -> None:
    sdk = docker.APIClient(version="auto", timeout=60, **kwargs_from_env())
    for name, strike in _faults(sdk).items():
        _row(f"worker {name}, to its replacement", [_idle_worker(daemon, strike) for _ in range(rounds)])
        _row(f"worker {name}, to `lost` at the client", [_busy_worker(daemon, strike) for _ in range(rounds)])
        daemon.await_workers("idle", WORKERS)
    sdk.close()


# ---- shares ----


def _shares(daemon: Daemon, seconds: float) -> None:
    """Each client keeps its jobs ahead, in a thread and with a connection of its own."""
    appetites = {"40 jobs of 2 s ahead": (2.0, 40), "20 jobs of 0.1 s ahead": (0.1, 20), "5,000 of 0.5 s": (0.5, 5_000)}
    had, ends = dict.fromkeys(appetites, 0.0), threading.Barrier(len(appetites))

    def run(name: str, job_s: float, ahead: int) -> None:
        with daemon.client(timeout=_PATIENCE_S) as client:
            ends.wait()
            until = time.monotonic() + seconds
            for result in client.map(_SLEEP, ([job_s] for _ in range(10**6)), entry="main", window=ahead):
                if time.monotonic() > until:
                    break
                assert result.ok, result.reason
                had[name] += result.timings.run_ms / 1000

    threads = [threading.Thread(target=run, args=(name, *appetite)) for name, appetite in appetites.items()]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for name, worker_s in had.items():
        print(f"client with {name:40} share {worker_s / sum(had.values()):6.1%}   due {1 / len(had):6.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of the daemon (%(default)s)")
    parser.add_argument("--faults", type=int, default=5, help="of each kind, with a job and without (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="for the shares (%(default)s)")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    with Daemon({"default": _POOL}) as daemon:
        _recovery(daemon, options.kills)
        _detection(daemon, options.faults)
    wide = _POOL | {"backlog": {"max_jobs": 100_000, "max_per_client": 100_000}}
    with Daemon({"default": wide}, engine="process") as daemon:
        daemon.wait_idle()
        _shares(daemon, options.seconds)


if __name__ == "__main__":
    main()
