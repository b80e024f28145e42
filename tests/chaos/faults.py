"""The faults of a campaign. Each is made at a random time; what can be undone is undone by the fault itself."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

import docker
from docker.errors import APIError

from pool.errors import PoolError

if TYPE_CHECKING:
    from tests.chaos.campaign import Campaign

Fault = Callable[["Campaign", Random], str]
#: A pause is long enough for heartbeats to be missed, or too short for it.
PAUSES_S = (0.2, 1.0, 4.0)


def worker_killed(campaign: Campaign, rng: Random) -> str:
    return _signal_runner(campaign, rng, signal.SIGKILL)


def worker_ended(campaign: Campaign, rng: Random) -> str:
    return _signal_runner(campaign, rng, signal.SIGTERM)


def worker_frozen(campaign: Campaign, rng: Random) -> str:
    return _signal_runner(campaign, rng, signal.SIGSTOP, then=signal.SIGCONT)


def zygote_killed(campaign: Campaign, rng: Random) -> str:
    """The process that forks the jobs' processes: the oldest child of the runner."""
    container = _a_container(campaign, rng)
    children = _children(_pid(campaign, container)) if container else []
    return _signal(children[0], signal.SIGKILL) if children else ""


def container_removed(campaign: Campaign, rng: Random) -> str:
    container = _a_container(campaign, rng)
    if container:
        campaign.engine.remove_container(container, force=True)
    return container[:12]


def container_paused(campaign: Campaign, rng: Random) -> str:
    container = _a_container(campaign, rng)
    if container:
        campaign.engine.pause(container)
        time.sleep(rng.choice(PAUSES_S))
        campaign.engine.unpause(container)
    return container[:12]


def client_killed(campaign: Campaign, rng: Random) -> str:
    return campaign.replace_submitter(rng.randrange(len(campaign.submitters)))


def client_frozen(campaign: Campaign, rng: Random) -> str:
    process = rng.choice(campaign.submitters)
    return _signal(process.pid, signal.SIGSTOP, then=signal.SIGCONT, after_s=rng.choice(PAUSES_S))


def daemon_killed(campaign: Campaign, _rng: Random) -> str:
    return campaign.restart_daemon(signal.SIGKILL)


def daemon_ended(campaign: Campaign, _rng: Random) -> str:
    return campaign.restart_daemon(signal.SIGTERM)


def daemon_frozen(campaign: Campaign, rng: Random) -> str:
    return _signal(campaign.daemon.process.pid, signal.SIGSTOP, then=signal.SIGCONT, after_s=rng.choice(PAUSES_S))


def engine_frozen(campaign: Campaign, rng: Random) -> str:
    if not campaign.engine_pid:
        return ""
    return _signal(campaign.engine_pid, signal.SIGSTOP, then=signal.SIGCONT, after_s=rng.choice(PAUSES_S))


def engine_restarted(campaign: Campaign, _rng: Random) -> str:
    """End dockerd and start it again. Without live-restore it ends all containers, those of others too."""
    return campaign.restart_engine() if campaign.engine_pid and campaign.engine_restarts else ""


def drained_and_resumed(campaign: Campaign, rng: Random) -> str:
    campaign.daemon.call("drain")
    time.sleep(rng.choice(PAUSES_S))
    campaign.daemon.call("resume")
    return "default"


def resized(campaign: Campaign, rng: Random) -> str:
    low = rng.randint(1, 2)
    campaign.daemon.call("resize", pool="default", min=low, max=low + 2)
    return f"{low} to {low + 2}"


def recycled(campaign: Campaign, _rng: Random) -> str:
    campaign.daemon.call("recycle")
    return "all"


#: How often each is chosen, in proportion. A restart takes seconds, in which nothing else can be tried.
FAULTS: dict[Fault, int] = {
    worker_killed: 12,
    worker_ended: 6,
    worker_frozen: 8,
    zygote_killed: 8,
    container_removed: 8,
    container_paused: 4,
    client_killed: 4,
    client_frozen: 4,
    daemon_killed: 5,
    daemon_ended: 3,
    daemon_frozen: 4,
    engine_frozen: 3,
    engine_restarted: 3,
    drained_and_resumed: 2,
    resized: 2,
    recycled: 1,
}
BY_NAME = {each.__name__: each for each in FAULTS}


def strike(campaign: Campaign, fault: Fault, rng: Random) -> bool:
    """Make the fault and record its target. False if there is no target."""
    try:
        target = fault(campaign, rng)
    except (PoolError, APIError, OSError, docker.errors.DockerException) as error:
        campaign.history.add("missed", fault=fault.__name__, why=f"{type(error).__name__}: {error}"[:200])
        return False
    if target:
        campaign.history.add("fault", fault=fault.__name__, target=target)
    return bool(target)


def _a_container(campaign: Campaign, rng: Random) -> str:
    found = campaign.containers()
    return rng.choice(found)["Id"] if found else ""


def _pid(campaign: Campaign, container: str) -> int:
    return campaign.engine.inspect_container(container)["State"]["Pid"]


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return sorted(map(int, file.read().split()))
    return []


def _signal_runner(campaign: Campaign, rng: Random, number: int, *, then: int = 0) -> str:
    container = _a_container(campaign, rng)
    pid = _pid(campaign, container) if container else 0
    return _signal(pid, number, then=then, after_s=rng.choice(PAUSES_S)) if pid else ""


def _signal(pid: int, number: int, *, then: int = 0, after_s: float = 0.0) -> str:
    os.kill(pid, number)
    if then:
        time.sleep(after_s)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, then)
    return str(pid)
