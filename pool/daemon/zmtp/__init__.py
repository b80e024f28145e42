"""The daemon's sockets: clients, administrators and workers connect with libzmq; this end is our own ZMTP 3 endpoint.

    transport = Transport(submit=..., admin=..., links=..., submit_mode=..., submit_group=...)
    transport.run_once(timeout_s, handlers)   one turn of the loop: wait, then call the handlers with what has come
    transport.submit, transport.admin         ClientListener: send(address, message, payload), queued_bytes(address)
    transport.links                           WorkerLinks: open(worker_id), send(worker_id, ...), close
    transport.call_soon(function)             from any thread: run it on the loop's thread
    transport.watch(fd, call)                 call once when a descriptor becomes readable

Nobody outside the package needs more than these names. The daemon does not use libzmq, because that counts whole
messages and single frames: a peer whose message never ends makes it hold as much memory as the peer likes.

Inside, from the bytes up: codec (bytes to events, messages to bytes; commands: greeting, READY, PING, PONG; body: a
large frame), connection (one peer), offer (a file for a worker), listener (clients) and links (workers), transport
(epoll, and a turn of the loop).
"""

from __future__ import annotations

from pool.daemon.zmtp.links import UNLEASED_BYTES, WorkerLinks
from pool.daemon.zmtp.listener import ClientListener
from pool.daemon.zmtp.transport import Handlers, Transport

__all__ = ["UNLEASED_BYTES", "ClientListener", "Handlers", "Transport", "WorkerLinks"]
