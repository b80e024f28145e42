"""A worker that answers each Run at once and runs nothing: python -m benchmarks.answering_worker LINK SOURCES.

It imports little, so that it starts quickly.
"""

import os
import sys
from collections.abc import Sequence

import zmq

from pool import values, wire
from pool.model import Outcome

_HEARTBEAT_MS = 1000
#: As in pool/daemon/self_tests.py.
_NOOP_ID, _NOOP_VALUE = "noop", [41, 42]


def main(link_path: str, sources: str) -> None:
    """Serve until the parent process is gone. `sources`: the digest that the daemon expects."""
    parent = os.getppid()
    link = zmq.Context().socket(zmq.PAIR)
    link.linger = 0  # unread messages must not delay the end of the process
    link.connect(f"ipc://{link_path}")

    def say(message: wire.Message, payload: Sequence[wire.Frame] = ()) -> None:
        link.send_multipart(wire.encode(message, payload))

    say(wire.Hello(runner="benchmark", sources=sources, python="3.11"))
    say(wire.Ready(boot_ms=1, preload_ms=1, isolation="plain"))
    noop, nothing = (values.encode(value, max_bytes=1000) for value in (_NOOP_VALUE, None))
    while os.getppid() == parent:
        if not link.poll(_HEARTBEAT_MS):
            say(wire.Heartbeat())
            continue
        run, _ = wire.decode(wire.to_runner, link.recv_multipart())
        if isinstance(run, wire.Run):
            value = noop if run.job_id == _NOOP_ID else nothing
            say(wire.Done(job_id=run.job_id, epoch=run.epoch, outcome=Outcome.OK), (b"", b"", b"", *value))
            say(wire.Freed(epoch=run.epoch))


if __name__ == "__main__":
    main(*sys.argv[1:])
