"""A taken-over runner: it makes the handshake of an honest one and then follows its script. Plain bytes, no libzmq.

    python -m tests.support.rogue_peer SCRIPT LINK DIGEST

A script is called at its moment: `boot` instead of Hello, `idle` when the worker has become idle, `job` with each Run.
When a script returns, the peer goes on and sends heartbeats, so that only the daemon ends it.
"""

import array
import contextlib
import os
import socket
import sys
import threading
import time
from pathlib import Path

import msgspec

from pool import wire
from pool.daemon.zmtp import codec, commands
from pool.daemon.zmtp.codec import Decoder
from pool.model import Outcome
from tests.support import rogue_prints

FOREVER_S = 600
_TENTH_S = 0.1


class Peer:
    """One connection to a link."""

    def __init__(self, link, digest):
        self.link, self.digest = link, digest
        self.idle = False
        self._decoder = Decoder(limit=1 << 30, max_frames=2000)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(link)

    # ---- saying ----

    def raw(self, data):
        self.sock.sendall(data)

    def frames(self, *frames):
        for each in codec.pack(frames):
            self.raw(each)

    def say(self, message, *payload):
        self.frames(*wire.encode(message, payload))

    def header(self, body, *payload):
        """A message with a header of one's own making."""
        self.frames(wire.PREAMBLE, body, *payload)

    def greet(self):
        self.raw(commands.GREETING + commands.ready("PAIR"))
        self.say(wire.Hello(runner="rogue", sources=self.digest, python="3.11"))
        self.say(wire.Ready(boot_ms=1, preload_ms=1, isolation="plain"))

    def answer(self, run, value=None, **lies):
        """Started, Done and Freed, as an honest runner says them."""
        from pool import values

        self.say(wire.Started(job_id=run.job_id, epoch=run.epoch))
        self.say(done(run, **lies), b"", b"", b"", *values.encode(value, max_bytes=1 << 20))
        self.say(wire.Freed(epoch=run.epoch))

    # ---- hearing ----

    def hear(self, timeout_s=None):
        """The next message of the daemon; None after the timeout."""
        self.sock.settimeout(timeout_s)
        data = b""
        while True:
            event = self._decoder.next(data)
            if isinstance(event, list):
                return wire.decode(wire.to_runner, event)
            data = b""
            if event is None:
                try:
                    data = self.sock.recv(1 << 16)
                except TimeoutError:
                    return None
                finally:
                    self.sock.settimeout(None)
                if not data:
                    raise ConnectionResetError
                self.sock.settimeout(timeout_s)


def done(run, **lies):
    return wire.Done(**{"job_id": run.job_id, "epoch": run.epoch, "outcome": Outcome.OK} | lies)


def started(run, **lies):
    return wire.Started(**{"job_id": run.job_id, "epoch": run.epoch} | lies)


NOTHING = (b"", b"", b"")

# ---- scripts: what is said instead of Hello ----


def boot_half_a_greeting(peer):
    peer.raw(commands.GREETING[:20])


def boot_random_bytes(peer):
    peer.raw(os.urandom(4096))


def boot_no_hello(peer):
    peer.raw(commands.GREETING + commands.ready("PAIR"))
    peer.say(wire.Heartbeat())


# ---- scripts: what is said by an idle worker ----


def idle_oversized_frame(peer):
    peer.raw(b"\x02" + (1 << 40).to_bytes(8))
    peer.raw(bytes(1 << 20))


def idle_large_message(peer):
    peer.say(wire.Heartbeat(), bytes(1 << 20))


def idle_flood_of_beats(peer):
    beat = b"".join(map(bytes, codec.pack(wire.encode(wire.Heartbeat()))))
    while True:
        peer.raw(beat * 1000)


def idle_flood_of_pings(peer):
    while True:
        peer.raw(b"\x04\x07\x04PING\0\0" * 1000)


def idle_done(peer):
    peer.say(wire.Done(job_id="noop", epoch=0, outcome=Outcome.OK), *NOTHING)


def idle_hello_again(peer):
    peer.say(wire.Hello(runner="rogue", sources=peer.digest, python="3.11"))


def idle_last_words(peer):
    peer.say(wire.Broken(reason="\x1b[2J\x1b[1;1Hpool is fine\r\n{0} %s \u202e" * 40))


def idle_descriptors(peer):
    beat = b"".join(map(bytes, codec.pack(wire.encode(wire.Heartbeat()))))
    with open(os.devnull) as null:
        fds = array.array("i", [null.fileno()] * 200)
        for _ in range(10):
            peer.sock.sendmsg([beat], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    idle_done(peer)  # which ends the worker once all of it was received


def idle_links_elsewhere(peer):
    """Swap what is at the path of the socket for ways to something else."""
    link = Path(peer.link)
    victim = link.parents[3] / "victim"
    link.unlink()
    link.symlink_to(victim / "file")
    (link.parent / "directory").symlink_to(victim)
    os.mkfifo(link.parent / "fifo")
    idle_hello_again(peer)


DEEP = b"\x81\xa4type" + b"\x91" * 2000
HEADERS = {
    "depth": DEEP,
    "array length": b"\x81\xa4type\xdd\xff\xff\xff\xff",
    "map length": b"\xdf\xff\xff\xff\xff",
    "string length": b"\x82\xa4type\xa6broken\xa6reason\xdb\xff\xff\xff\xff",
    "extension": b"\x82\xa4type\xa6broken\xa6reason\xc7\x04\xff\0\0\0\0",
    "key that is no string": b"\x82\xa4type\xa9heartbeat\x01\x01",
    "number over 64 bits": b"\x82\xa4type\xa9heartbeat\xa3seq\xcf" + b"\xff" * 8,
    "not a number": b"\x83\xa4type\xa5ready\xa7boot_ms\xcb\x7f\xf8\0\0\0\0\0\0\xaapreload_ms\x01",
    "text that is none": b"\x82\xa4type\xa6broken\xa6reason\xa2\xff\xfe",
    "unknown field": msgspec.msgpack.encode({"type": "heartbeat", "seq": 1, "more": 1}),
    "unknown word": msgspec.msgpack.encode({"type": "obey"}),
    "missing field": msgspec.msgpack.encode({"type": "started", "epoch": 1}),
    "text for a number": msgspec.msgpack.encode({"type": "heartbeat", "seq": "1"}),
    "truth for a number": msgspec.msgpack.encode({"type": "heartbeat", "seq": True}),
    "number below nothing": msgspec.msgpack.encode({"type": "heartbeat", "seq": -1}),
    "id of a million": msgspec.msgpack.encode({"type": "started", "job_id": "x" * 60_000, "epoch": 1}),
}


def idle_header(peer, name):
    peer.header(HEADERS[name])


def idle_other_version(peer):
    peer.frames(wire.MAGIC + b"\x63", msgspec.msgpack.encode({"type": "heartbeat"}))


# ---- scripts: what is said when a job has come ----


def job_other_id(peer, run):
    peer.say(started(run))
    peer.say(done(run, job_id="somebody-elses"), *NOTHING)


def job_other_epoch(peer, run):
    peer.say(started(run))
    peer.say(done(run, epoch=run.epoch + 1), *NOTHING)


def job_short_of_another_lease(peer, run):
    peer.say(done(run, epoch=run.epoch + 1), *NOTHING)


def job_start_after_result(peer, run):
    from pool import values

    peer.say(done(run), *NOTHING, *values.encode("first", max_bytes=1000))
    peer.say(started(run))


def job_a_header_of_the_largest_size(peer, run):
    """What the daemon adds to it for the client does not fit any more."""
    names = tuple(f"{number:03}".ljust(255, "x") for number in range(240))
    room = wire.MAX_HEADER_BYTES - len(wire.encode(done(run, files=names, reason="x" * 1000))[1])
    peer.say(done(run, files=names, reason="x" * (1000 + room)), *NOTHING, *[b""] * len(names))
    peer.say(wire.Freed(epoch=run.epoch))


def job_two_results(peer, run):
    from pool import values

    peer.say(started(run))
    for value in ("first", "second"):
        peer.say(done(run), *NOTHING, *values.encode(value, max_bytes=1000))


def job_second_peer(peer, run):
    second = socket.socket(socket.AF_UNIX)
    second.connect(peer.link)
    with contextlib.suppress(OSError):
        second.sendall(commands.GREETING + commands.ready("PAIR"))
        for each in codec.pack(wire.encode(done(run, reason="forged"), NOTHING)):
            second.sendall(each)
    time.sleep(_TENTH_S)
    peer.answer(run, "honest")


def job_endless_multipart(peer, run):
    peer.say(started(run))
    part = (b"\x01\xc8" + bytes(200)) * 5000
    while True:
        peer.raw(part)


def job_endless_frame(peer, run):
    peer.say(started(run))
    peer.raw(b"\x02" + (1 << 33).to_bytes(8))
    while True:
        peer.raw(bytes(1 << 20))


_REPLAY = []


def job_replay(peer, run):
    """Answer the first job, and the second with the very frames of the first."""
    if not _REPLAY:
        _REPLAY.append(run)
        peer.answer(run, "first")
    else:
        peer.say(started(_REPLAY[0]))
        peer.say(done(_REPLAY[0]), *NOTHING)


def job_half_a_message(peer, run):
    peer.say(started(run))
    peer.raw(b"\x03" + (1000).to_bytes(8) + b"half")


def job_exits(_peer, _run):
    """Ends in the moment in which it gets a job."""
    os._exit(0)


def job_half_a_result_and_exits(peer, run):
    job_half_a_message(peer, run)
    os._exit(0)


def job_lies(peer, run):
    peer.answer(
        run,
        "value",
        cpu_s=1e9,
        max_rss_bytes=1 << 60,
        started_ns=0,
        ended_ns=1 << 62,
        reason="a\x1b[31mb\n" + "x" * 4000,
    )


def job_wedged(peer, run):
    """Alive, and runs nothing."""
    peer.idle = False


def job_bomb(peer, run):
    import zlib

    peer.say(started(run))
    bomb = zlib.compress(bytes(100_000_000), 9)
    peer.say(done(run), b"", b"", b"", bomb)
    peer.say(wire.Freed(epoch=run.epoch))


def job_traversal(peer, run):
    peer.say(started(run))
    peer.say(done(run, files=("../../etc/passwd",)), *NOTHING, b"root::0:0")


def job_dirty_words(peer, run):
    peer.say(started(run))
    peer.say(done(run), *NOTHING)
    peer.say(wire.Freed(epoch=run.epoch, residue="\x1b]0;owned\x07\n" * 100))


# ---- the peer ----


def main(script, link, digest):
    name, _, argument = script.partition(":")
    act, moment = globals().get(name) or getattr(rogue_prints, name), name.partition("_")[0]
    peer = Peer(link, digest)
    if moment == "boot":
        act(peer)
        time.sleep(FOREVER_S)
    peer.greet()
    noop, _ = peer.hear()
    peer.answer(noop, [41, 42])
    if moment == "idle":
        peer.say(wire.Heartbeat())
        act(peer, *filter(None, [argument]))
        time.sleep(FOREVER_S)
    peer.idle = True
    _serve(peer, act)


def _serve(peer, act):
    while True:
        heard = peer.hear(0.2 if peer.idle else None)
        if heard is None:
            peer.say(wire.Heartbeat())
        elif isinstance(heard[0], wire.Probe):
            peer.say(wire.Heartbeat(seq=heard[0].seq))
        elif isinstance(heard[0], wire.Run):
            act(peer, heard[0])


if __name__ == "__main__":
    threading.Timer(FOREVER_S, lambda: os._exit(3)).start()
    try:
        main(*sys.argv[1:])
    except OSError:
        time.sleep(FOREVER_S)  # it was cut off; what is left of it is ended from outside
