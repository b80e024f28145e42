"""Answers pool-admin on the admin socket. A call takes plain arguments and returns a plain dict."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence

from pool import wire
from pool.core import events as ev
from pool.daemon.controller import PoolController
from pool.daemon.job_store import Job, JobStore
from pool.daemon.snapshot import doctor
from pool.daemon.zmtp import ClientListener
from pool.errors import InvalidJobError, PoolError, UnknownJobError, UnknownPoolError

Scalar = str | int | float | bool | None
Json = dict[str, object]
#: Jobs shown by `jobs`, the newest; the store may hold a hundred thousand.
_SHOWN_JOBS = 1000
_MAX_WORKERS = 256
#: Codes that are named in a sentence; there may be thousands.
_NAMED_CODES = 10
_MAX_MESSAGE_CHARS = 4000


class AdminService:
    """The calls, by name. Called from the loop's thread."""

    def __init__(
        self,
        listener: ClientListener,
        controllers: Mapping[str, PoolController],
        jobs: JobStore,
        snapshot: Callable[[], Json],
    ) -> None:
        self._listener = listener
        self._controllers = controllers
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
            "doctor": lambda _: doctor(self._controllers),
        }

    def receive(self, address: bytes, _client: str, frames: Sequence[wire.Frame]) -> None:
        """One call; it gets one answer."""
        request, body = 0, b"null"
        try:
            call, _ = wire.decode(wire.from_admin, frames)
            request = call.request
            body = json.dumps(self._call(call.name, call.arguments)).encode()
            reply = wire.AdminReply(request=request)
        except PoolError as error:
            message = error.message[:_MAX_MESSAGE_CHARS]
            reply = wire.AdminReply(request=request, code=error.code, message=message, fields=error.fields)
        self._listener.send(address, reply, [body])

    def _call(self, name: str, arguments: Mapping[str, Scalar]) -> Json:
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
        controller = self._owner_of(str(worker))
        controller.apply(ev.RecycleRequested(worker_id=str(worker), cause="operator"))
        return {"pools": [controller.state.name], "text": f"{worker} is replaced"}

    def _resize(self, arguments: Mapping[str, Scalar]) -> Json:
        low, high = arguments.get("min"), arguments.get("max")
        if type(low) is not int or type(high) is not int or not 1 <= low <= high <= _MAX_WORKERS:
            raise InvalidJobError(f"resize takes 1 <= min <= max <= {_MAX_WORKERS}, got min {low!r} and max {high!r}")
        controller = self._one(arguments)
        controller.apply(ev.ResizeRequested(min_workers=low, max_workers=high, cause="operator"))
        return {"pools": [controller.state.name], "text": f"{controller.state.name} has {low} to {high} workers"}

    def _story(self, arguments: Mapping[str, Scalar]) -> Json:
        wanted = str(arguments.get("id"))
        now = time.monotonic()
        for key in (wanted, *(job.key for job in self._store if job.key.endswith(f"/{wanted}"))):
            job = self._store.get(key)
            for name, controller in self._controllers.items():
                done = job.history if job is not None and job.pool == name else ()
                if history := done or controller.state.history(key):
                    entries = [
                        {"age_s": round(now - each.at, 3), "state": each.state, "what": each.text, "cause": each.cause}
                        for each in history
                    ]
                    return {"id": key, "pool": name, "entries": entries}
        raise UnknownJobError(f"nothing is known of a job or worker {wanted!r:.80}; see pool-admin jobs and workers")

    def _jobs(self, arguments: Mapping[str, Scalar]) -> Json:
        pool = arguments.get("pool")
        if pool is not None:
            self._one(arguments)
        rows = [_row(job, self._controllers[job.pool]) for job in self._store if pool in (None, job.pool)]
        return {"jobs": rows[-_SHOWN_JOBS:], "total": len(rows)}

    def _cancel(self, arguments: Mapping[str, Scalar]) -> Json:
        wanted = str(arguments.get("job"))
        found = [job for job in self._store if job.key == wanted or job.key.endswith(f"/{wanted}")]
        if not found:
            raise UnknownJobError(f"there is no job {wanted!r:.80}; see pool-admin jobs")
        for job in found:
            self._controllers[job.pool].apply(ev.CancelRequested(job_id=job.key, cause="operator"))
        return {"pools": sorted({job.pool for job in found}), "text": f"{wanted} is cancelled"}

    def _pardon(self, arguments: Mapping[str, Scalar]) -> Json:
        """One code by the beginning of its digest, or all of it; in one pool, or in all that remember it."""
        wanted, everything = arguments.get("code"), arguments.get("all") is True
        if (wanted is None) is not everything:
            raise InvalidJobError("pardon takes a code, as pool-admin poison lists it, or else all")
        controllers = list(self._controllers.values()) if arguments.get("pool") is None else [self._one(arguments)]
        known = [
            (controller, each.code) for controller in controllers for each in controller.state.poison(time.monotonic())
        ]
        found = [(controller, code) for controller, code in known if code.startswith(str(wanted or ""))]
        codes = sorted({code for _, code in found})
        if wanted is not None and len(codes) != 1:
            problem = f"{len(codes)} codes begin with" if codes else "no code is remembered that begins with"
            raise InvalidJobError(f"{problem} {wanted!r:.80}; see pool-admin poison")
        for controller, code in found:
            controller.apply(ev.PardonRequested(code=code, cause="operator"))
        text = f"pardoned: {', '.join(codes[:_NAMED_CODES]) or 'there was nothing to pardon'}"
        return {"pools": sorted({controller.state.name for controller, _ in found}), "codes": codes, "text": text}

    def _tell(self, arguments: Mapping[str, Scalar], event: ev.Event, text: str) -> Json:
        controllers = list(self._controllers.values()) if arguments.get("pool") is None else [self._one(arguments)]
        for controller in controllers:
            controller.apply(event)
        names = [controller.state.name for controller in controllers]
        return {"pools": names, "text": f"{', '.join(names)}: {text}"}

    def _one(self, arguments: Mapping[str, Scalar]) -> PoolController:
        name = arguments.get("pool")
        controller = self._controllers.get(str(name))
        if controller is None:
            raise UnknownPoolError(f"there is no pool {name!r:.60}; there are: {', '.join(self._controllers)}")
        return controller

    def _owner_of(self, worker_id: str) -> PoolController:
        for controller in self._controllers.values():
            if worker_id in controller.state.workers:
                return controller
        raise UnknownPoolError(f"there is no worker {worker_id!r:.60}; see pool-admin workers")


def _row(job: Job, controller: PoolController) -> Json:
    record = controller.state.jobs.get(job.key)
    return {
        "id": job.key.partition("/")[2],
        "pool": job.pool,
        "state": str(record.state) if record is not None else "done",
        "outcome": str(job.result.outcome) if job.result is not None else None,
        "client": job.client,
        "age_s": round((time.monotonic_ns() - job.received_ns) / 1e9, 3),
        "worker": record.worker_id if record is not None else job.result and job.result.worker,
    }
