"""What was accepted, who waits for it, and the results while they are kept. Bytes and addresses; no decisions.

A job's key is its submitter and its id, so that no client can see, or collide with, another's jobs. Results stay for
`ttl_s` and, all together, under `max_bytes`: the oldest go first.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from pool import wire
from pool.daemon.tape import Tape
from pool.errors import BacklogFullError, InvalidJobError
from pool.model import StartKind
from pool.units import format_size

#: What an entry costs besides its frames: header, record and table, about.
_ENTRY_BYTES = 2048
#: Jobs of one client that wait or run, all together. One job of any size is always taken.
_MAX_WAITING_BYTES = 1024 * 1024 * 1024
_RETRY_S = 1.0


@dataclass(slots=True, kw_only=True)
class Entry:
    """One accepted job. Until it is done it has `run` and `payload`, from then on `result` and `answer`."""

    key: str
    client: str
    pool: str
    fingerprint: bytes
    received_ns: int
    run: wire.Run | None
    payload: Sequence[wire.Frame]
    leased_ns: int = 0
    attempt: int = 0
    start: StartKind | None = None
    worker: str | None = None
    watchers: set[bytes] = field(default_factory=set)
    tape: Tape | None = None  #: what it prints, once somebody has asked for it
    result: wire.Result | None = None
    answer: Sequence[wire.Frame] = ()
    expires_at: float = 0.0
    held_bytes: int = 0


def _cost(frames: Sequence[wire.Frame]) -> int:
    return _ENTRY_BYTES + sum(memoryview(frame).nbytes for frame in frames)


def key_of(client: str, job_id: str) -> str:
    """A client's name for a job is its own; this is the daemon's."""
    return f"{client}/{job_id}"


def fingerprint(job: wire.Submit, payload: Sequence[wire.Frame]) -> bytes:
    """Digest of what a job is, without how it was asked for."""
    body = msgspec.structs.replace(job, request=0, watch=False, stream=False)
    digest = hashlib.blake2b(wire.encode(body)[1], digest_size=16)
    for frame in payload:
        digest.update(memoryview(frame).nbytes.to_bytes(8))
        digest.update(frame)
    return digest.digest()


class Ledger:
    """Entries by key; finished ones also in the order of their end."""

    def __init__(self, *, ttl_s: float, max_bytes: int) -> None:
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._entries: dict[str, Entry] = {}
        self._finished: OrderedDict[str, Entry] = OrderedDict()
        self._held = 0
        self._waiting: Counter[str] = Counter()  # bytes of jobs that are not done, by client

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def known(self, key: str, body: bytes) -> Entry | None:
        """The entry of a job that was submitted before. Raises InvalidJobError when it was another job."""
        entry = self._entries.get(key)
        if entry is not None and entry.fingerprint != body:
            raise InvalidJobError("job_id: this id was already used for another job; give each job an id of its own")
        return entry

    def add(self, entry: Entry) -> None:
        """Raises BacklogFullError when its client has too much here that is not done."""
        entry.held_bytes = _cost(entry.payload)
        waiting = self._waiting[entry.client]
        if waiting and waiting + entry.held_bytes > _MAX_WAITING_BYTES:
            raise BacklogFullError(
                f"your jobs that are not done hold {format_size(waiting)}, at most {format_size(_MAX_WAITING_BYTES)} "
                "are kept for one user; wait for some, or put what they share into a data set of the template",
                retry_after_s=_RETRY_S,
            )
        self._waiting[entry.client] += entry.held_bytes
        self._entries[entry.key] = entry

    def drop(self, entry: Entry) -> None:
        """Forget an entry that was never accepted."""
        self._entries.pop(entry.key, None)
        self._let_go(entry)

    def _let_go(self, entry: Entry) -> None:
        self._waiting[entry.client] -= entry.held_bytes
        if not self._waiting[entry.client]:
            del self._waiting[entry.client]

    def finish(self, entry: Entry, result: wire.Result, answer: Sequence[wire.Frame], *, now: float) -> set[bytes]:
        """Keep the result; the addresses that wait for it."""
        self._let_go(entry)
        entry.result, entry.answer = result, answer
        entry.run, entry.payload = None, ()
        if entry.tape is not None:
            entry.tape.close()
            entry.tape = None
        entry.expires_at = now + self._ttl_s
        entry.held_bytes = _cost(answer)
        self._held += entry.held_bytes
        self._finished[entry.key] = entry
        waiting, entry.watchers = entry.watchers, set()
        return waiting

    def expire(self, now: float, forget: Callable[[Entry], None]) -> None:
        """Drop results that are over their time, or that do not fit any more."""
        while self._finished:
            entry = next(iter(self._finished.values()))
            if entry.expires_at > now and self._held <= self._max_bytes:
                return
            self._finished.popitem(last=False)
            self._entries.pop(entry.key, None)
            self._held -= entry.held_bytes
            forget(entry)
