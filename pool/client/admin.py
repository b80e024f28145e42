"""AdminClient: calls to the daemon's admin.sock and their answers, for `pool-admin` and for scripts.

    AdminCall(name, arguments)  ──▶  daemon  ──▶  AdminReply(code, message) and one JSON document

Synchronous: one socket, no thread; one AdminClient belongs to one thread and one process.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from typing import Final, Self

import msgspec
import zmq

from pool import wire
from pool.client import checks
from pool.client.endpoint import absent, admin_endpoint, unreachable
from pool.errors import ClosedError, PoolError, RemoteProtocolError, from_code
from pool.status import Status

#: Seconds between two looks whether a drain is done.
_POLL_S = 0.25


class AdminClient:
    """Calls one daemon. `endpoint`: else POOL_ADMIN_ENDPOINT, else beside submit.sock. `timeout`: seconds a call."""

    def __init__(self, endpoint: str | os.PathLike[str] | None = None, *, timeout: float = 5.0) -> None:
        self.endpoint: Final = admin_endpoint(endpoint)
        self._timeout_s = checks.seconds("timeout", timeout)
        self._numbers = itertools.count(1)
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._closed = False

    def call(self, name: str, **arguments: str | float | bool | None) -> object:
        """The answer, as JSON values. Raises the daemon's error, or DaemonUnreachableError."""
        number = next(self._numbers)
        return self._exchange(wire.AdminCall(request=number, name=name, arguments=arguments), number)

    def mine(self) -> object:
        """For a client of a submit socket: the user's own jobs, and the pools."""
        number = next(self._numbers)
        return self._exchange(wire.Mine(request=number), number)

    def drain(self, pool: str | None = None, *, timeout: float | None = None) -> object:
        """Have this pool, or all, accept no new jobs and finish the accepted ones. Returns the daemon's answer.

        `timeout`: wait up to so many seconds until no job is left. Raises PoolError with the number of those that are
        left then, which go on, or if the pool takes jobs again meanwhile.
        """
        limit_s = None if timeout is None else checks.seconds("timeout", timeout)
        answer = self.call("drain", **({} if pool is None else {"pool": pool}))
        if limit_s is not None:
            self._wait_for_drain(pool, limit_s)
        return answer

    def _wait_for_drain(self, pool: str | None, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while left := self._left(pool):
            if time.monotonic() >= deadline:
                raise PoolError(
                    f"after {limit_s:g} s {left}; they go on, and no new ones are taken: call drain again to wait on, "
                    "cancel them, or resume"
                )
            time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))

    def _left(self, pool: str | None) -> str:
        """The jobs that still run or wait in draining pools, in words; empty if there are none."""
        try:
            pools = msgspec.convert(self.call("status"), Status).pools
        except msgspec.ValidationError as error:
            raise RemoteProtocolError(f"the daemon's status is not what this version reads: {error}") from None
        chosen = [each for each in pools if pool in {None, each.name}]
        if resumed := [each.name for each in chosen if each.state == "running"]:
            raise PoolError(f"{', '.join(resumed)} was resumed and takes jobs again: there is no drain to wait for")
        busy = [each for each in chosen if each.running or each.backlog]
        return ", ".join(f"{each.running} jobs run and {each.backlog} wait in {each.name}" for each in busy)

    def close(self) -> None:
        self._closed = True
        self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self, message: wire.AdminCall | wire.Mine, number: int) -> object:
        if self._closed:
            raise ClosedError("this admin client has been closed; make a new one")
        if self._socket is None and (error := absent(self.endpoint)) is not None:
            raise error  # do not wait for a daemon that cannot answer
        socket = self._socket or self._connect()
        try:
            socket.send_multipart(wire.encode(message), zmq.NOBLOCK)
            reply, payload = self._reply(socket, number)
        except BaseException:
            self._disconnect()  # a call that failed here must not be sent or answered later
            raise
        if reply.code:
            raise from_code(reply.code, reply.message, reply.fields)
        return _document(payload)

    def _reply(self, socket: zmq.Socket[bytes], number: int) -> tuple[wire.AdminReply, Sequence[wire.Frame]]:
        deadline = time.monotonic() + self._timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            if socket.poll(int(left_s * 1000) + 1):
                reply, payload = wire.decode(wire.to_admin, socket.recv_multipart())
                if reply.request == number:
                    return reply, payload
        raise unreachable(self.endpoint, self._timeout_s)

    def _connect(self) -> zmq.Socket[bytes]:
        self._context = self._context or zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_FRAME_BYTES)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self._socket.connect(self.endpoint)
        return self._socket

    def _disconnect(self) -> None:
        if self._context is not None:
            self._context.destroy(linger=0)
        self._context = self._socket = None


def _document(payload: Sequence[wire.Frame]) -> object:
    if len(payload) != 1:
        raise RemoteProtocolError(f"an answer is one JSON document, got {len(payload)} frames")
    try:
        return msgspec.json.decode(payload[0])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"the answer is not valid JSON: {error}") from None
