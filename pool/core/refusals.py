"""Why a job cannot be accepted now: its code, its user's other jobs, a full backlog, or no worker to be had."""

from __future__ import annotations

from pool.core.events import JobSubmitted
from pool.core.state import State
from pool.errors import BacklogFullError, PoisonedCodeError, PoolError, PoolUnavailableError
from pool.model import WorkerState
from pool.units import format_size

#: When a refused client may try again, where nothing better is known.
RETRY_S = 1.0
_CAN_SERVE = frozenset({WorkerState.IDLE, WorkerState.LEASED, WorkerState.CLEANING, WorkerState.SUSPECT})


def refusal(pool: State, event: JobSubmitted, *, at_once: bool) -> PoolError | None:
    """Why this job cannot be accepted now. `at_once`: it needs no place in the backlog."""
    if event.code in pool.poison.refused and (poisoned := _poison_refusal(pool, event.code)) is not None:
        return poisoned
    if event.follow_up:
        return None  # it was accepted with its first part
    if pool.breaker.open and not any(worker.state in _CAN_SERVE for worker in pool.workers.values()):
        retry_s = max(RETRY_S, (pool.breaker.retry_at or 0.0) - pool.now)
        return PoolUnavailableError(f"No worker can be started: {pool.breaker.last_reason}", retry_after_s=retry_s)
    most = pool.policy.bytes_per_client
    if event.held_bytes and event.held_bytes + event.size_bytes > most:
        return BacklogFullError(
            f"Your unfinished jobs hold {format_size(event.held_bytes)}, and one user may hold "
            f"{format_size(most)}. Wait for some of them, or put what they share into a data set.",
            retry_after_s=pool.backlog.retry_after_s(),
        )
    full = None if at_once else pool.backlog.why_full(event.client)
    return None if full is None else BacklogFullError(full, retry_after_s=pool.backlog.retry_after_s())


def _poison_refusal(pool: State, code: str) -> PoolError | None:
    left_s = pool.poison.refused_s(code, pool.now)
    if left_s is None:
        return None
    return PoisonedCodeError(
        pool.poison.explain(code, pool.now),
        digest=code,
        kills=pool.poison.count(code, pool.now),
        history=pool.poison.history(code, pool.now),
        retry_after_s=left_s,
    )
