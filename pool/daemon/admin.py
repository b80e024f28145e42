"""What pool-admin may ask. Each call takes plain arguments and returns a plain dict, for the CLI to render."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from pool.core import events as ev
from pool.daemon.job_store import Job, JobStore
from pool.daemon.keeper import Keeper
from pool.daemon.snapshot import doctor
from pool.errors import InvalidJobError, PoolError, UnknownJobError, UnknownPoolError

Scalar = str | int | float | bool | None
Json = dict[str, object]
#: Jobs shown by `jobs`, the newest; the store may hold a hundred thousand.
_SHOWN_JOBS = 1000
_MOST_WORKERS = 256
#: Codes that a sentence names; there may be thousands.
_NAMED_CODES = 10


class Admin:
    """The calls, by name."""

    def __init__(self, keepers: Mapping[str, Keeper], jobs: JobStore, snapshot: Callable[[], Json]) -> None:
        self._keepers = keepers
        self._store = jobs
        self._calls: dict[str, Callable[[Mapping[str, Scalar]], Json]] = {
            "status": lambda _: snapshot(),
            "drain": self._drain,
            "resume": self._resume,
            "recycle": self._recycle,
            "resize": self._resize,
            "story": self._story,
            "jobs": self._jobs,
            "cancel": self._cancel,
            "pardon": self._pardon,
            "doctor": lambda _: doctor(self._keepers),
        }

    def call(self, name: str, arguments: Mapping[str, Scalar]) -> Json:
        """Raises PoolError for what cannot be done."""
        call = self._calls.get(name)
        if call is None:
            raise PoolError(f"the daemon knows no call {name!r:.60}; it knows: {', '.join(sorted(self._calls))}")
        return call(arguments)

    def _drain(self, arguments: Mapping[str, Scalar]) -> Json:
        return self._tell(arguments, ev.DrainRequested(cause="operator"), "takes no new jobs and finishes what it has")

    def _resume(self, arguments: Mapping[str, Scalar]) -> Json:
        return self._tell(arguments, ev.ResumeRequested(cause="operator"), "takes jobs")

    def _recycle(self, arguments: Mapping[str, Scalar]) -> Json:
        worker = arguments.get("worker")
        if worker is None:
            event = ev.RecycleRequested(cause="operator")
            return self._tell(arguments, event, "replaces its workers, one after another")
        keeper = self._holder(str(worker))
        keeper.apply(ev.RecycleRequested(worker_id=str(worker), cause="operator"))
        return {"pools": [keeper.state.name], "text": f"{worker} is replaced"}

    def _resize(self, arguments: Mapping[str, Scalar]) -> Json:
        low, high = arguments.get("min"), arguments.get("max")
        if type(low) is not int or type(high) is not int or not 1 <= low <= high <= _MOST_WORKERS:
            raise InvalidJobError(f"resize takes 1 <= min <= max <= {_MOST_WORKERS}, got min {low!r} and max {high!r}")
        keeper = self._one(arguments)
        keeper.apply(ev.ResizeRequested(min_workers=low, max_workers=high, cause="operator"))
        return {"pools": [keeper.state.name], "text": f"{keeper.state.name} has {low} to {high} workers"}

    def _story(self, arguments: Mapping[str, Scalar]) -> Json:
        wanted = str(arguments.get("id"))
        now = time.monotonic()
        for key in (wanted, *(entry.key for entry in self._store if entry.key.endswith(f"/{wanted}"))):
            for keeper in self._keepers.values():
                if story := keeper.state.story(key):
                    entries = [
                        {"age_s": round(now - each.at, 3), "state": each.state, "what": each.text, "cause": each.cause}
                        for each in story
                    ]
                    return {"id": key, "pool": keeper.state.name, "entries": entries}
        raise UnknownJobError(f"nothing is known of a job or worker {wanted!r:.80}; see pool-admin jobs and workers")

    def _jobs(self, arguments: Mapping[str, Scalar]) -> Json:
        pool = arguments.get("pool")
        if pool is not None:
            self._one(arguments)
        rows = [_row(entry, self._keepers[entry.pool]) for entry in self._store if pool in (None, entry.pool)]
        return {"jobs": rows[-_SHOWN_JOBS:], "total": len(rows)}

    def _cancel(self, arguments: Mapping[str, Scalar]) -> Json:
        wanted = str(arguments.get("job"))
        found = [entry for entry in self._store if entry.key == wanted or entry.key.endswith(f"/{wanted}")]
        if not found:
            raise UnknownJobError(f"there is no job {wanted!r:.80}; see pool-admin jobs")
        for entry in found:
            self._keepers[entry.pool].apply(ev.CancelRequested(job_id=entry.key, cause="operator"))
        return {"pools": sorted({entry.pool for entry in found}), "text": f"{wanted} is cancelled"}

    def _pardon(self, arguments: Mapping[str, Scalar]) -> Json:
        """One code by the beginning of its digest, or all of it; in one pool, or in all that remember it."""
        wanted, everything = arguments.get("code"), arguments.get("all") is True
        if (wanted is None) is not everything:
            raise InvalidJobError("pardon takes a code, as pool-admin poison lists it, or else all")
        keepers = list(self._keepers.values()) if arguments.get("pool") is None else [self._one(arguments)]
        known = [(keeper, each.code) for keeper in keepers for each in keeper.state.poison(time.monotonic())]
        found = [(keeper, code) for keeper, code in known if code.startswith(str(wanted or ""))]
        codes = sorted({code for _, code in found})
        if wanted is not None and len(codes) != 1:
            problem = f"{len(codes)} codes begin with" if codes else "no code is remembered that begins with"
            raise InvalidJobError(f"{problem} {wanted!r:.80}; see pool-admin poison")
        for keeper, code in found:
            keeper.apply(ev.PardonRequested(code=code, cause="operator"))
        text = f"pardoned: {', '.join(codes[:_NAMED_CODES]) or 'there was nothing to pardon'}"
        return {"pools": sorted({keeper.state.name for keeper, _ in found}), "codes": codes, "text": text}

    def _tell(self, arguments: Mapping[str, Scalar], event: ev.Event, text: str) -> Json:
        keepers = list(self._keepers.values()) if arguments.get("pool") is None else [self._one(arguments)]
        for keeper in keepers:
            keeper.apply(event)
        names = [keeper.state.name for keeper in keepers]
        return {"pools": names, "text": f"{', '.join(names)}: {text}"}

    def _one(self, arguments: Mapping[str, Scalar]) -> Keeper:
        name = arguments.get("pool")
        keeper = self._keepers.get(str(name))
        if keeper is None:
            raise UnknownPoolError(f"there is no pool {name!r:.60}; there are: {', '.join(self._keepers)}")
        return keeper

    def _holder(self, worker_id: str) -> Keeper:
        for keeper in self._keepers.values():
            if worker_id in keeper.state.workers:
                return keeper
        raise UnknownPoolError(f"there is no worker {worker_id!r:.60}; see pool-admin workers")


def _row(entry: Job, keeper: Keeper) -> Json:
    record = keeper.state.jobs.get(entry.key)
    return {
        "id": entry.key.partition("/")[2],
        "pool": entry.pool,
        "state": str(record.state) if record is not None else "done",
        "outcome": str(entry.result.outcome) if entry.result is not None else None,
        "client": entry.client,
        "age_s": round((time.monotonic_ns() - entry.received_ns) / 1e9, 3),
        "worker": entry.worker,
    }
