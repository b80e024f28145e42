"""The daemon's side of the client protocol: a real ROUTER in a thread, which a test scripts.

Unscripted it is a well-behaved daemon with one endless worker: it accepts jobs, runs them in its own process (they are
the test's own code) and answers. A job whose source text is `HOLD`, or a function called `hold`, runs until the test
ends it or somebody cancels it.

    daemon.on(wire.Submit, reaction)    reaction(call) replaces what the daemon does with that kind of message
    daemon.do(action)                   have an action done on the daemon's thread
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
import zmq

from pool import values, wire
from pool.model import Outcome

HOLD = "# hold"
Output = tuple[bytes, bytes]


@dataclass(kw_only=True)
class Job:
    job_id: str
    watchers: list[bytes] = field(default_factory=list)
    result: list[wire.Frame] | None = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """One message of a client, and the means to answer it."""

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
        """What the daemon would have done without a script."""
        self.daemon.usual(self)


class FakeDaemon:
    def __init__(self, path: Path | str, *, instance: str = "one", jobs: dict[str, Job] | None = None) -> None:
        self.endpoint = f"ipc://{path}"
        self.instance = instance
        self.heard: list[wire.Message] = []
        self.payloads: list[Sequence[bytes]] = []
        self.jobs: dict[str, Job] = dict(jobs or {})  # before the first message can come
        self._reactions: dict[type, Callable[[Call], None]] = {}
        self._actions: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0)
        self._stopped = False
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fake daemon")
        self._thread.start()
        assert self._bound.wait(10)

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
        """End a job that is held."""
        self.do(lambda: self._end(self.jobs[job_id], outcome=outcome, value=value, output=output))

    def show(self, job_id: str, name: str, offset: int, text: bytes) -> None:
        """Send a piece of a held job's output to those who wait for it."""
        output = wire.encode(wire.Output(job_id=job_id, name=name, offset=offset), [text])
        self.do(lambda: [self.send(peer, output) for peer in self.jobs[job_id].watchers])

    def stop(self) -> None:
        """Gone at once, like a daemon that was killed; jobs are forgotten with it."""
        if not self._stopped:
            self._stopped = True
            os.eventfd_write(self._wake, 1)
            self._thread.join(10)
            assert not self._thread.is_alive()
            os.close(self._wake)

    def job(self, job_id: str) -> Job:
        """A job that was submitted, once it has been taken in: it is heard of before."""
        deadline = time.monotonic() + 10
        while job_id not in self.jobs and time.monotonic() < deadline:
            time.sleep(0.002)
        return self.jobs[job_id]

    def of(self, kind: type[wire.Message]) -> list[wire.Message]:
        """All messages of this kind that came."""
        return [message for message in self.heard if isinstance(message, kind)]

    def wait_for(self, kind: type[wire.Message], count: int = 1) -> None:
        eventually(lambda: len(self.of(kind)) >= count)

    # ---- the daemon ----

    def send(self, peer: bytes, frames: Sequence[wire.Frame]) -> None:
        self._socket.send_multipart([peer, *frames])

    def usual(self, call: Call) -> None:
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
                    self._hear(*self._socket.recv_multipart())

    def _hear(self, peer: bytes, *frames: bytes) -> None:
        message, payload = wire.decode(wire.from_client, frames)
        self.payloads.append(payload)
        self.heard.append(message)
        call = Call(daemon=self, peer=peer, message=message, payload=payload)
        self._reactions.get(type(message), self.usual)(call)

    def _submit(self, call: Call, submit: wire.Submit) -> None:
        call.answer(wire.Accepted(request=submit.request, job_id=submit.job_id))
        job = self.jobs.setdefault(submit.job_id, Job(job_id=submit.job_id))
        if submit.watch:
            self._watch(call, job.job_id)
        if job.result is not None or call.payload[0] == HOLD.encode():
            return
        program = cloudpickle.loads(call.payload[0]) if submit.pickled else None
        if getattr(program, "__name__", "") == "hold":
            return
        try:
            value = _execute(submit, call.payload, program)
        except Exception as error:  # noqa: BLE001 - whatever the test's job raises
            fault = wire.Fault(type=type(error).__name__, message=str(error), traceback="Traceback: line 1")
            self._end(job, outcome=Outcome.ERROR, fault=fault)
        else:
            self._end(job, value=value)

    def _watch(self, call: Call, job_id: str) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            call.refuse("unknown_job", f"no job {job_id}")
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
        header = wire.Result(job_id=job.job_id, outcome=outcome, reason="" if outcome is Outcome.OK else "so it was")
        frames = values.encode(value, max_bytes=1 << 20) if outcome is Outcome.OK else []
        job.result = wire.encode(header, [*output, wire.encode_fault(fault) if fault else b"", *frames])
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


def eventually(condition: Callable[[], object], deadline_s: float = 20.0) -> None:
    """Wait until it holds."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)
