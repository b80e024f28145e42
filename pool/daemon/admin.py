"""Answers pool-admin on the admin socket: a call by name, with plain arguments, gets a struct of `pool.status`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from pool import status as st
from pool import wire
from pool.core import events as ev
from pool.core.records import HistoryEntry
from pool.daemon.controller import PoolController
from pool.daemon.job import Job
from pool.daemon.job_store import JobStore
from pool.daemon.status import arrivals, probes
from pool.daemon.zmtp import ClientListener
from pool.errors import InvalidJobError, PoolError, UnknownJobError, UnknownPoolError

Scalar = str | int | float | bool | None
Arguments = Mapping[str, Scalar]
#: The most jobs in the answer to `jobs`, the newest first; the store may hold a hundred thousand.
_SHOWN_JOBS = 1000
_MAX_WORKERS = 256
#: The most codes that a sentence names; there may be thousands.
_NAMED_CODES = 10
_MAX_MESSAGE_CHARS = 4000


class AdminService:
    """The calls, by name. Called from the loop's thread."""

    def __init__(
        self,
        listener: ClientListener,
        controllers: Mapping[str, PoolController],
        jobs: JobStore,
        status: Callable[[], st.Status],
    ) -> None:
        self._listener = listener
        self._controllers = controllers
        self._store = jobs
        self._calls: dict[str, Callable[[Arguments], st.Part]] = {
            "status": lambda _: status(),
            "drain": self._drain,
            "resume": self._resume,
            "recycle": self._recycle,
            "resize": self._resize,
            "history": self._history,
            "jobs": self._jobs,
            "cancel": self._cancel,
            "pardon": self._pardon,
            "doctor": lambda _: probes(self._controllers),
            "arrivals": lambda _: arrivals(self._controllers),
        }

    def receive(self, address: bytes, _client: str, frames: Sequence[wire.Frame]) -> None:
        """One call; it gets one answer."""
        request, body = 0, b"null"
        try:
            call, _ = wire.decode(wire.from_admin, frames)
            request = call.request
            # json escapes lone surrogates, as in a file name that is not UTF-8; msgspec refuses them
            body = json.dumps(msgspec.to_builtins(self._call(call.name, call.arguments))).encode()
            reply = wire.AdminReply(request=request)
        except PoolError as error:
            message = error.message[:_MAX_MESSAGE_CHARS]
            reply = wire.AdminReply(request=request, code=error.code, message=message, fields=error.fields)
        self._listener.send(address, reply, [body])

    def _call(self, name: str, arguments: Arguments) -> st.Part:
        call = self._calls.get(name)
        if call is None:
            raise PoolError(f"there is no call {name!r:.60}; there are: {', '.join(sorted(self._calls))}")
        return call(arguments)

    # ---- pools ----

    def _drain(self, arguments: Arguments) -> st.Action:
        event = ev.DrainRequested(cause="operator")
        return self._apply(arguments, event, "takes no new jobs and finishes what it has")

    def _resume(self, arguments: Arguments) -> st.Action:
        return self._apply(arguments, ev.ResumeRequested(cause="operator"), "takes jobs")

    def _recycle(self, arguments: Arguments) -> st.Action:
        worker = arguments.get("worker")
        if worker is None:
            event = ev.RecycleRequested(cause="operator")
            return self._apply(arguments, event, "replaces its workers, one after another")
        controller = self._controller_of(str(worker))
        controller.apply(ev.RecycleRequested(worker_id=str(worker), cause="operator"))
        return st.Action(pools=(controller.state.name,), text=f"{worker} is replaced")

    def _resize(self, arguments: Arguments) -> st.Action:
        low, high = arguments.get("min"), arguments.get("max")
        if type(low) is not int or type(high) is not int or not 1 <= low <= high <= _MAX_WORKERS:
            raise InvalidJobError(f"resize takes 1 <= min <= max <= {_MAX_WORKERS}, got min {low!r} and max {high!r}")
        controller = self._controller(arguments)
        controller.apply(ev.ResizeRequested(min_workers=low, max_workers=high, cause="operator"))
        name = controller.state.name
        return st.Action(pools=(name,), text=f"{name} has {low} to {high} workers")

    def _pardon(self, arguments: Arguments) -> st.Pardon:
        """Pardon one code, by the beginning of its digest, or all; in one pool, or in all that remember it."""
        wanted, everything = arguments.get("code"), arguments.get("all") is True
        if (wanted is None) is not everything:
            raise InvalidJobError("pardon takes a code, as pool-admin poison lists it, or else all")
        now, beginning = time.monotonic(), str(wanted or "")
        known = [(each, poison.code) for each in self._chosen(arguments) for poison in each.state.poison(now)]
        found = [(controller, code) for controller, code in known if code.startswith(beginning)]
        codes = tuple(sorted({code for _, code in found}))
        if wanted is not None and len(codes) != 1:
            problem = f"{len(codes)} codes begin with" if codes else "no code is remembered that begins with"
            raise InvalidJobError(f"{problem} {wanted!r:.80}; see pool-admin poison")
        for controller, code in found:
            controller.apply(ev.PardonRequested(code=code, cause="operator"))
        text = f"pardoned: {', '.join(codes[:_NAMED_CODES]) or 'there was nothing to pardon'}"
        return st.Pardon(pools=_names(controller for controller, _ in found), codes=codes, text=text)

    def _apply(self, arguments: Arguments, event: ev.Event, text: str) -> st.Action:
        controllers = self._chosen(arguments)
        for controller in controllers:
            controller.apply(event)
        names = tuple(controller.state.name for controller in controllers)
        return st.Action(pools=names, text=f"{', '.join(names)}: {text}")

    def _chosen(self, arguments: Arguments) -> list[PoolController]:
        """The pool that is named, else all of them."""
        return list(self._controllers.values()) if arguments.get("pool") is None else [self._controller(arguments)]

    def _controller(self, arguments: Arguments) -> PoolController:
        name = arguments.get("pool")
        controller = self._controllers.get(str(name))
        if controller is None:
            raise UnknownPoolError(f"there is no pool {name!r:.60}; there are: {', '.join(self._controllers)}")
        return controller

    def _controller_of(self, worker_id: str) -> PoolController:
        for controller in self._controllers.values():
            if worker_id in controller.state.workers:
                return controller
        raise UnknownPoolError(f"there is no worker {worker_id!r:.60}; see pool-admin workers")

    # ---- jobs ----

    def _jobs(self, arguments: Arguments) -> st.Jobs:
        pool = None if arguments.get("pool") is None else self._controller(arguments).state.name
        jobs = [job for job in self._store if pool in {None, job.pool}]
        rows = tuple(_job_status(job, self._controllers[job.pool]) for job in jobs[-_SHOWN_JOBS:])
        return st.Jobs(jobs=rows, total=len(jobs))

    def _cancel(self, arguments: Arguments) -> st.Action:
        wanted = str(arguments.get("job"))
        found = self._named(wanted)
        if not found:
            raise UnknownJobError(f"there is no job {wanted!r:.80}; see pool-admin jobs")
        for job in found:
            self._controllers[job.pool].apply(ev.CancelRequested(job_id=job.current, cause="operator"))
        return st.Action(pools=_names(self._controllers[job.pool] for job in found), text=f"{wanted} is cancelled")

    def _history(self, arguments: Arguments) -> st.History:
        """The history of a job, a worker, a pool, or of code that has destroyed workers."""
        wanted = str(arguments.get("id"))
        named = self._named(wanted)
        finished = ((job.key, job.pool, job.history) for job in named)
        keys = (wanted, *(job.key for job in named))
        traces = {job.key: job.trace for job in named if job.trace}
        known = ((key, name, pool.state.history(key)) for key in keys for name, pool in self._controllers.items())
        for key, name, entries in (*finished, *known):
            if entries:
                return st.History(id=key, pool=name, entries=_lines(entries), trace=_trace(traces.get(key, [])))
        raise UnknownJobError(f"nothing is known of a job or worker {wanted!r:.80}; see pool-admin jobs and workers")

    def _named(self, wanted: str) -> list[Job]:
        """The jobs of any client with this id."""
        return [job for job in self._store if job.key == wanted or job.key.endswith(f"/{wanted}")]


def _names(controllers: Iterator[PoolController]) -> tuple[str, ...]:
    return tuple(sorted({controller.state.name for controller in controllers}))


def _lines(entries: Sequence[HistoryEntry]) -> tuple[st.HistoryLine, ...]:
    now = time.monotonic()
    return tuple(
        st.HistoryLine(age_s=round(now - each.at, 3), state=each.state, what=each.text, cause=each.cause)
        for each in entries
    )


def _trace(marks: Sequence[tuple[str, int]]) -> tuple[st.TraceLine, ...]:
    return tuple(st.TraceLine(step=step, us=(at_ns - marks[0][1]) / 1000) for step, at_ns in marks)


def _job_status(job: Job, controller: PoolController) -> st.JobStatus:
    """The status of a job: from the core's record, or from the result if it has ended."""
    record, result = controller.state.jobs.get(job.current), job.result
    worker = record.worker_id if record is not None else result.worker if result is not None else None
    return st.JobStatus(
        id=job.key.partition("/")[2],
        pool=job.pool,
        state=record.state.value if record is not None else "done",
        outcome=result.outcome.value if result is not None else None,
        client=job.client,
        age_s=round((time.monotonic_ns() - job.received_ns) / 1e9, 3),
        worker=worker,
    )
