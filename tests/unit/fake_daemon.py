"""The daemon's side of the client protocol for tests: a real ROUTER socket in a thread.

By default it accepts jobs, runs them in its own process (they are the test's own code) and answers. A
job whose source text is `HOLD`, or a function called `hold`, runs until the test ends it or a client cancels it.

    daemon.on(wire.Submit, reaction)    reaction(call) replaces what the daemon does with messages of that type
    daemon.do(action)                   run an action on the daemon's thread
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import cloudpickle
import msgspec
import zmq

from pool import values, wire
from pool.model import Outcome
from tests.support.waiting import eventually

HOLD = "# hold"
Output = tuple[bytes, bytes]


@dataclass(kw_only=True)
class Job:
    job_id: str
    watchers: list[bytes] = field(default_factory=list)
    result: list[wire.Frame] | None = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """One message of a client, with methods to answer it."""

    daemon: FakeDaemon
    peer: bytes
    message: wire.Message
    payload: Sequence[bytes]

    def answer(self, message: wire.Message, payload: Sequence[wire.Frame] = ()) -> None:
        self.raw(wire.encode(message, payload))

    def raw(self, frames: Sequence[wire.Frame]) -> None:
        self.daemon.send(self.peer, frames)

    def refuse(self, code: str, message: str = "no", **fields) -> None:
        self.answer(wire.Refused(request=self.message.request, code=code, message=message, fields=fields))

    def proceed(self) -> None:
        """Do what the daemon does by default."""
        self.daemon.by_default(self)


class FakeDaemon:
    def __init__(self, path: Path | str, *, instance: str = "one", jobs: dict[str, Job] | None = None) -> None:
        self.endpoint = f"ipc://{path}"
        self.instance = instance
        self.known_since_ns = time.monotonic_ns()
        self.received: list[wire.Message] = []
        self.payloads: list[Sequence[bytes]] = []
        self.jobs: dict[str, Job] = dict(jobs or {})  # before the first message can come
        self._reactions: dict[type, Callable[[Call], None]] = {}
        self._actions: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0)
        self._stopped = False
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fake daemon")
        self._thread.start()
        assert self._bound.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- for the test ----

    def on(self, kind: type[wire.Message], reaction: Callable[[Call], None]) -> None:
        self._reactions[kind] = reaction

    def do(self, action: Callable[[], None]) -> None:
        self._actions.append(action)
        os.eventfd_write(self._wake, 1)

    def finish(
        self, job_id: str, outcome: Outcome = Outcome.OK, value: object = None, output: Output = (b"", b"")
    ) -> None:
        """End a held job, once it is stored."""
        job = self.job(job_id)
        self.do(lambda: self._end(job, outcome=outcome, value=value, output=output))

    def print(self, job_id: str, name: str, offset: int, text: bytes) -> None:
        """Send a piece of a held job's output to its watchers."""
        output = wire.encode(wire.Output(job_id=job_id, name=name, offset=offset), [text])
        job = self.job(job_id)
        self.do(lambda: [self.send(peer, output) for peer in job.watchers])

    def stop(self) -> None:
        """Like a daemon that was killed."""
        if not self._stopped:
            self._stopped = True
            os.eventfd_write(self._wake, 1)
            self._thread.join(60)
            assert not self._thread.is_alive()
            os.close(self._wake)

    def job(self, job_id: str) -> Job:
        """A submitted job, once it is stored: its message is received before."""
        eventually(lambda: job_id in self.jobs)
        return self.jobs[job_id]

    def open_jobs(self, at_least: int = 0) -> list[str]:
        """The ids of the jobs that have not ended, once there are so many."""

        def found() -> list[str]:
            return [job.job_id for job in list(self.jobs.values()) if job.result is None]

        eventually(lambda: len(found()) >= at_least)
        return found()

    def of(self, kind: type[wire.Message]) -> list[wire.Message]:
        """The received messages of this type."""
        return [message for message in self.received if isinstance(message, kind)]

    def wait_for(self, kind: type[wire.Message], count: int = 1) -> None:
        eventually(lambda: len(self.of(kind)) >= count)

    # ---- the daemon ----

    def send(self, peer: bytes, frames: Sequence[wire.Frame]) -> None:
        self._socket.send_multipart([peer, *frames])

    def by_default(self, call: Call) -> None:
        match call.message:
            case wire.Submit():
                self._submit(call, call.message)
            case wire.Watch(job_id=job_id):
                self._watch(call, job_id)
            case wire.Cancel(request=request, job_id=job_id):
                if job_id not in self.jobs:
                    call.refuse("unknown_job")
                    return
                call.answer(wire.Accepted(request=request, job_id=job_id))
                if self.jobs[job_id].result is None:
                    self._end(self.jobs[job_id], outcome=Outcome.CANCELLED)
            case wire.Ping(request=request):
                call.answer(wire.Pong(request=request, instance=self.instance, version="0"))

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as self._socket:
            self._socket.linger = 0
            self._socket.bind(self.endpoint)
            self._bound.set()
            poller = zmq.Poller()
            poller.register(self._wake, zmq.POLLIN)
            poller.register(self._socket, zmq.POLLIN)
            while not self._stopped:
                ready = dict(poller.poll())
                if self._wake in ready:
                    os.eventfd_read(self._wake)
                while self._actions:
                    self._actions.popleft()()
                if self._socket in ready:
                    self._receive(*self._socket.recv_multipart())

    def _receive(self, peer: bytes, *frames: bytes) -> None:
        message, payload = wire.decode(wire.from_client, frames)
        self.payloads.append(payload)
        self.received.append(message)
        call = Call(daemon=self, peer=peer, message=message, payload=payload)
        self._reactions.get(type(message), self.by_default)(call)

    def _submit(self, call: Call, submit: wire.Submit) -> None:
        job = self.jobs.setdefault(submit.job_id, Job(job_id=submit.job_id))  # whoever has the answer finds it
        call.answer(wire.Accepted(request=submit.request, job_id=submit.job_id))
        if submit.watch:
            self._watch(call, job.job_id)
        if job.result is not None or call.payload[0] == HOLD.encode():
            return
        program = cloudpickle.loads(call.payload[0]) if submit.pickled else None
        if getattr(program, "__name__", "") == "hold":
            return
        if submit.apart:
            self._end_calls(job, submit, call.payload, program)
            return
        try:
            value = _execute(submit, call.payload, program)
        except Exception as error:  # noqa: BLE001 - whatever the test's job raises
            fault = wire.Fault(type=type(error).__name__, message=str(error), traceback="Traceback: line 1")
            self._end(job, outcome=Outcome.ERROR, fault=fault)
        else:
            self._end(job, value=value)

    def _end_calls(self, job: Job, submit: wire.Submit, payload: Sequence[bytes], program: object) -> None:
        """A chunk whose calls run apart: a row for each."""
        ended, bodies, rest = [], [], payload[2 + len(submit.files) :]
        single = msgspec.structs.replace(submit, files=())
        for size in submit.calls:
            frames, rest = [payload[0], *rest[:size]], rest[size:]
            outcome, error, value = Outcome.OK, b"", []
            try:
                value = values.encode(_execute(single, frames, program), max_bytes=1 << 20)
            except Exception as raised:  # noqa: BLE001 - whatever the test's job raises
                fault = wire.Fault(type=type(raised).__name__, message=str(raised), traceback="")
                outcome, error = Outcome.ERROR, wire.encode_fault(fault)
            body = [error, *map(bytes, value)]
            ended.append(wire.Call(job_id=job.job_id, outcome=outcome, sizes=(0, 0, *map(len, body))))
            bodies.append(b"".join(body))
        header = wire.Result(job_id=job.job_id, outcome=Outcome.OK, calls=len(ended))
        self._give_out(job, wire.encode(header, [b"", b"", b"", wire.encode_calls(ended), *bodies]))

    def _watch(self, call: Call, job_id: str) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            call.refuse("unknown_job", f"no job {job_id}", known_since_ns=self.known_since_ns)
        elif job.result is not None:
            call.raw(job.result)
        else:
            job.watchers.append(call.peer)

    def _end(
        self,
        job: Job,
        *,
        outcome: Outcome = Outcome.OK,
        value: object = None,
        fault: wire.Fault | None = None,
        output: Output = (b"", b""),
    ) -> None:
        header = wire.Result(
            job_id=job.job_id, outcome=outcome, reason="" if outcome is Outcome.OK else "the test says so"
        )
        frames = values.encode(value, max_bytes=1 << 20) if outcome is Outcome.OK else []
        self._give_out(job, wire.encode(header, [*output, wire.encode_fault(fault) if fault else b"", *frames]))

    def _give_out(self, job: Job, result: list[wire.Frame]) -> None:
        job.result = result
        for peer in job.watchers:
            self.send(peer, job.result)
        job.watchers.clear()


def _execute(submit: wire.Submit, payload: Sequence[bytes], program: Callable[..., object] | None) -> object:
    frames = payload[2 + len(submit.files) :]
    args, kwargs = values.decode(frames) if frames else ((), {})
    if program is not None:
        return program(*args, **kwargs)
    names: dict[str, object] = {}
    exec(payload[0].decode(), names)
    return names[submit.entry](*args, **kwargs) if submit.entry else names.get("result")


def ignore(call):
    """A script that answers nothing."""


def read_all(client):
    """Answers come in order: after this one, the client has read all that the daemon sent before."""
    client.submit("")
