"""The submit socket's side: what clients say is decoded, checked, and answered. Every request gets one answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import structlog

from pool import wire
from pool._version import __version__
from pool.core import events as ev
from pool.daemon import intake
from pool.daemon.keeper import Keeper
from pool.daemon.ledger import Entry, Ledger, fingerprint, key_of
from pool.daemon.outlet import Outlet
from pool.daemon.tape import Tape
from pool.daemon.zmtp import ClientListener
from pool.errors import PoolError, UnknownJobError, UnknownPoolError, from_code

log = structlog.get_logger(__name__)


class Desk:
    """Takes jobs in and hands results out. Called from the loop's thread."""

    def __init__(
        self, door: ClientListener, keepers: Mapping[str, Keeper], ledger: Ledger, *, outlet: Outlet, instance: str
    ) -> None:
        self._door = door
        self._keepers = keepers
        self._ledger = ledger
        self._outlet = outlet
        self._instance = instance

    def serve(self, address: bytes, client: str, frames: Sequence[wire.Frame]) -> None:
        """One message of one client."""
        request = 0
        try:
            message, payload = wire.decode(wire.from_client, frames)
            request = message.request
            if isinstance(message, wire.Submit):
                self._submit(address, client, message, payload)
            elif isinstance(message, wire.Watch):
                self._watch(address, client, message)
            elif isinstance(message, wire.Cancel):
                self._cancel(address, client, message)
            else:
                pong = wire.Pong(request=request, instance=self._instance, version=__version__)
                self._door.send(address, pong)
        except PoolError as error:
            log.info(
                "a request was refused", action="refuse", client=client, code=error.code, reason=error.message[:500]
            )
            refused = wire.Refused(request=request, code=error.code, message=error.message[:4000], fields=error.fields)
            self._door.send(address, refused)

    def deliver(self, entry: Entry, addresses: set[bytes]) -> None:
        """Send a finished job's result to those who wait for it. Who is gone may ask again later."""
        if entry.result is None:
            return
        for address in addresses:
            self._door.send(address, entry.result, entry.answer)

    def _submit(self, address: bytes, client: str, job: wire.Submit, payload: Sequence[wire.Frame]) -> None:
        received_ns = time.monotonic_ns()
        key, body = key_of(client, job.job_id), fingerprint(job, payload)
        entry = self._ledger.known(key, body)
        if entry is None:
            self._accept(key, client, job, payload, body, received_ns, address if job.watch else None)
            self._door.send(address, wire.Accepted(request=job.request, job_id=job.job_id))
            return
        self._door.send(address, wire.Accepted(request=job.request, job_id=job.job_id))
        if job.watch:
            self._attend(entry, address, stream=job.stream)

    def _accept(  # noqa: PLR0913, PLR0917 - the parts of one entry
        self,
        key: str,
        client: str,
        job: wire.Submit,
        payload: Sequence[wire.Frame],
        body: bytes,
        received_ns: int,
        watcher: bytes | None,
    ) -> None:
        keeper = self._keeper(job.pool)
        entry = Entry(
            key=key,
            client=client,
            pool=job.pool,
            fingerprint=body,
            received_ns=received_ns,
            run=intake.prepare(job, payload, keeper.template),
            payload=payload,
        )
        if watcher is not None:
            self._attend(entry, watcher, stream=job.stream)
        self._ledger.add(entry)
        refusal = keeper.submit(_event(entry, job, keeper))
        if refusal is not None:
            self._ledger.drop(entry)
            retry = {} if refusal.retry_after_s is None else {"retry_after_s": refusal.retry_after_s}
            raise from_code(refusal.code, refusal.message, {**refusal.fields, **retry})

    def _keeper(self, pool: str) -> Keeper:
        keeper = self._keepers.get(pool)
        if keeper is None:
            raise UnknownPoolError(f"there is no pool {pool!r:.60}; there are: {', '.join(self._keepers)}")
        return keeper

    def _watch(self, address: bytes, client: str, message: wire.Watch) -> None:
        entry = self._own(client, message.job_id)
        self._door.send(address, wire.Accepted(request=message.request, job_id=message.job_id))
        self._attend(entry, address, stream=message.stream)

    def _attend(self, entry: Entry, address: bytes, *, stream: bool) -> None:
        if entry.result is not None or entry.run is None:
            self.deliver(entry, {address})
            return
        entry.watchers.add(address)
        if stream:
            entry.tape = entry.tape or Tape(entry.run.job_id, limit=entry.run.output)
            self._keepers[entry.pool].stream(entry)
            self._outlet.join(entry.tape, address)

    def _cancel(self, address: bytes, client: str, message: wire.Cancel) -> None:
        entry = self._own(client, message.job_id)
        self._door.send(address, wire.Accepted(request=message.request, job_id=message.job_id))
        self._keepers[entry.pool].apply(ev.CancelRequested(job_id=entry.key, cause=f"client {client}"))

    def _own(self, client: str, job_id: str) -> Entry:
        entry = self._ledger.get(key_of(client, job_id))
        if entry is None:
            raise UnknownJobError(
                f"there is no job {job_id!r:.140} of yours: this user never submitted it, its result is over its time, "
                "or the daemon was restarted since"
            )
        return entry


def _event(entry: Entry, job: wire.Submit, keeper: Keeper) -> ev.JobSubmitted:
    wall_s = entry.run.wall_s if entry.run is not None else keeper.template.limits.wall_s
    timeout = job.queue_timeout_s if job.queue_timeout_s is not None else keeper.template.backlog.queue_timeout_s
    return ev.JobSubmitted(
        job_id=entry.key,
        client=entry.client,
        wall_s=wall_s,
        priority=job.priority,
        queue_timeout_s=timeout,
        code=intake.code_digest(job, entry.payload),
        cause=f"client {entry.client}",
    )
