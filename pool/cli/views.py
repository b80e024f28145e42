"""Reads the daemon's answers into the structs of `pool.status`. `troubles` lists the reasons for exit status 4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from pool.errors import RemoteProtocolError, UnknownPoolError
from pool.status import Part, PoisonStatus, PoolArrivals, PoolStatus, Probes, Status

NO_PROBES = Probes()


class PoolPoison(PoisonStatus, frozen=True, kw_only=True):
    """Code that has cost workers of one pool."""

    pool: str = ""


class Poison(Part, frozen=True, kw_only=True):
    """The code of several pools, as `pool-admin poison` lists it."""

    poison: tuple[PoolPoison, ...]


V = TypeVar("V", bound=Part)


def read(answer: object, kind: type[V]) -> V:
    """The daemon's answer as a struct. Raises RemoteProtocolError when it is something else."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise RemoteProtocolError(
            f"the daemon's answer is not what this version reads: {error}; use the pool-admin that came with the daemon"
        ) from None


P = TypeVar("P", PoolStatus, PoolArrivals)


def chosen_pools(pools: Sequence[P], name: str | None) -> list[P]:
    """The pool of this name, or all for None. Raises UnknownPoolError if none has it."""
    found = [each for each in pools if name in (None, each.name)]
    if name is not None and not found:
        known = ", ".join(each.name for each in pools) or "none"
        raise UnknownPoolError(f"there is no pool {name!r}; the pools are: {known}")
    return found


def troubles(snapshot: Status) -> list[str]:
    """One sentence for each reason why a pool is degraded. Empty if none is."""
    state = snapshot.daemon.state
    found = [] if state == "running" else [f"the daemon is {state or 'in an unknown state'}, not running"]
    for pool in snapshot.pools:
        found += _pool_troubles(pool)
    return found


def _pool_troubles(pool: PoolStatus) -> list[str]:
    found = []
    ready = sum(worker.state in ("idle", "leased") for worker in pool.workers)
    if ready < pool.size.min:
        found.append(f"pool {pool.name}: {ready} of at least {pool.size.min} workers ready")
    if pool.breaker is not None and pool.breaker.open:
        again = "" if pool.breaker.retry_in_s is None else f", next try in {pool.breaker.retry_in_s:.0f} s"
        found.append(
            f"pool {pool.name}: no workers are started after {pool.breaker.failures} failed starts{again}: "
            f"{pool.breaker.last_reason or 'no reason given'}"
        )
    return found
