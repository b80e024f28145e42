"""A client without the project's code: ZeroMQ, msgpack, and what docs/protocol.md says.

    echo 'def main(x): return x * 2' | python examples/bare_client.py main 21

It submits source text, calls one function of it with numbers, and prints what came back. A client in another language
does the same with its own libraries.
"""

from __future__ import annotations

import ast
import os
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Any

import msgpack
import zmq

PREAMBLE = b"WCP\x02"
TUPLE = 16
ASK_AGAIN_MS = 1000
SILENT_S = 60.0


class BareClient:
    """One connection. Used by one thread, for one job at a time."""

    def __init__(self, path: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.connect(f"ipc://{path}")
        self._number = 0

    def close(self) -> None:
        self._context.destroy(linger=0)

    def send(self, kind: str, payload: Sequence[bytes] = (), **fields: Any) -> None:
        """One message: preamble, header, payload."""
        self._socket.send_multipart([PREAMBLE, msgpack.packb({"type": kind, **fields}), *payload])

    def receive(self) -> tuple[dict[str, Any], list[bytes]] | None:
        """Header and payload of the next message; None after a second without one."""
        if not self._socket.poll(ASK_AGAIN_MS):
            return None
        preamble, header, *payload = self._socket.recv_multipart()
        if preamble != PREAMBLE:
            raise ConnectionError(f"the daemon speaks version {preamble[3]} of the protocol")
        return msgpack.unpackb(header), payload

    def run(
        self, code: str, entry: str, args: Sequence[Any] = (), **options: Any
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Header and payload of the Result. Raises ConnectionError, and RuntimeError for a job that is refused."""
        self._number += 1
        job: dict[str, Any] = {"request": self._number, "job_id": uuid.uuid4().hex}
        submit: dict[str, Any] = {**job, "entry": entry, "watch": True, **options}
        payload = [code.encode(), b"", encode((tuple(args), {}))]
        self.send("submit", payload, **submit)
        accepted, heard = False, time.monotonic()
        while time.monotonic() < heard + SILENT_S:
            answer = self.receive()
            if answer is None and accepted:  # a Submit would run it again if the daemon had forgotten it
                self.send("watch", **job)
            elif answer is None:  # the same id is the same job, so this does not run it twice
                self.send("submit", payload, **submit)
            else:
                heard, (header, frames) = time.monotonic(), answer
                if header["type"] == "result" and header["job_id"] == job["job_id"]:
                    return header, frames
                if header["type"] == "refused":
                    raise RuntimeError(f"{header['code']}: {header['message']}")
                accepted = accepted or header["type"] == "accepted"
        raise ConnectionError(f"nothing has come from the daemon for {SILENT_S:g} s")


def encode(value: object) -> bytes:
    """A value of nil, bool, numbers, text, lists, maps and tuples, as one frame."""

    def mark(found: object) -> object:
        if isinstance(found, tuple):
            return [msgpack.ExtType(TUPLE, b""), *found]
        raise TypeError(f"{type(found).__name__} cannot be encoded here")

    packed: bytes = msgpack.packb(value, default=mark, strict_types=True)
    return packed


def decode(frame: bytes) -> object:
    """The value of a frame; what this client does not know is left as msgpack has it."""

    def unmark(items: list[Any]) -> object:
        return tuple(items[1:]) if items[:1] == [msgpack.ExtType(TUPLE, b"")] else items

    return msgpack.unpackb(frame, list_hook=unmark)


def main() -> int:
    entry, *args = sys.argv[1:]
    run_dir = os.environ.get("POOL_RUN_DIR", "/run/pool")
    path = os.environ.get("POOL_ENDPOINT", f"{run_dir}/submit.sock").removeprefix("ipc://")
    if not os.path.exists(path):  # noqa: PTH110
        sys.exit(f"no daemon: {path} does not exist")
    client = BareClient(path)
    header, (stdout, _stderr, error, *value) = client.run(sys.stdin.read(), entry, list(map(ast.literal_eval, args)))
    client.close()
    print(header["outcome"], header["reason"], stdout.decode(errors="replace"), sep="\n")
    print(decode(value[0]) if value else msgpack.unpackb(error) if error else None)
    return 0 if header["outcome"] == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
