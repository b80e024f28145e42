"""Headers of messages, for each of the sockets: an input is a byte for the decoder, and the frames."""

from collections.abc import Iterable
from random import Random

import msgspec

from pool import wire
from pool.errors import RemoteProtocolError
from pool.model import Outcome
from tests.fuzz.frames import join, split
from tests.fuzz.mutate import bend_bytes, bend_msgpack
from tests.fuzz.target import Target

_DECODERS = (wire.from_client, wire.to_client, wire.from_runner, wire.to_runner, wire.from_admin, wire.to_admin)
_FAULT = len(_DECODERS)
_LIMITS = wire.JobLimits(wall_s=1.5, memory=1 << 30, processes=4)
_MESSAGES: tuple[tuple[int, wire.Message], ...] = (
    (0, wire.Submit(request=1, job_id="a-1", entry="main", files=("x", "y"), env={"A": "b"}, limits=_LIMITS, seed=7)),
    (0, wire.Watch(request=2, job_id="a-1")),
    (0, wire.Cancel(request=3, job_id="a:1")),
    (0, wire.Ping(request=4)),
    (0, wire.Mine(request=5)),
    (1, wire.Accepted(request=1, job_id="a-1")),
    (1, wire.Refused(request=1, code="busy", message="later", fields={"retry_after_s": 1.5, "pool": None})),
    (1, wire.Result(job_id="a-1", outcome=Outcome.ERROR, files=("x",), exit_code=1, truncated=("stdout",), worker="w")),
    (1, wire.Pong(request=4, instance="i", version="1")),
    (2, wire.Hello(runner="1", sources="s", python="3.11")),
    (2, wire.Ready(boot_ms=1.5, preload_ms=2, isolation="namespaces", missing=("landlock",))),
    (2, wire.Started(job_id="a-1", epoch=1)),
    (2, wire.Done(job_id="a-1", epoch=1, outcome=Outcome.OK, files=("x",), truncated=("stderr",), cpu_s=0.1)),
    (2, wire.Freed(epoch=1, residue="a file")),
    (2, wire.Heartbeat(seq=9)),
    (2, wire.Broken(reason="it broke")),
    (3, wire.Run(job_id="a-1", epoch=1, wall_s=1, cpu_s=1, memory=1, tmp=1, output=1, result=1, processes=1)),
    (0, wire.Submit(request=6, job_id="a-2", entry="main", calls=(1, 0, 2))),
    (1, wire.Result(job_id="a-2", outcome=Outcome.OK, calls=3)),
    (2, wire.Done(job_id="a-2", epoch=1, outcome=Outcome.OK, calls=3)),
    (3, wire.Kill(job_id="a-1", epoch=1)),
    (3, wire.Probe(seq=1)),
    (4, wire.AdminCall(request=1, name="status", arguments={"pool": "default", "full": True})),
    (5, wire.AdminReply(request=1, code="", fields={"a": 1})),
)
_FAULTS = (
    wire.Fault(type="ValueError", message="no", traceback="line 1"),
    wire.Fault(type="x", message="", findings=(wire.Finding(rule="S1", line=1, column=1, reason="r", remedy="m"),)),
)


def one(data: bytes) -> None:
    which = data[0] % (_FAULT + 1) if data else 0
    frames = split(data[1:])
    try:
        if which == _FAULT:
            _fault(frames)
        else:
            _message(_DECODERS[which], frames)
    except RemoteProtocolError as error:
        str(error).encode()


def _message(decoder: msgspec.msgpack.Decoder[wire.Message], frames: list[bytes]) -> None:
    message, payload = wire.decode(decoder, frames)
    assert list(payload) == frames[2:]
    again, rest = wire.decode(decoder, wire.encode(message, payload))
    assert _same(again, message)
    assert list(rest) == frames[2:]


def _fault(frames: list[bytes]) -> None:
    fault = wire.decode_fault(frames[0] if frames else b"")
    assert wire.decode_fault(wire.encode_fault(fault)) == fault


def _same(one: wire.Message, two: wire.Message) -> bool:
    """Of one type and with the same bytes: NaN is a float that a map of fields may hold."""
    return type(one) is type(two) and msgspec.msgpack.encode(one) == msgspec.msgpack.encode(two)


def mutate(data: bytes, random: Random) -> bytes:
    """Mostly the header, as a tree."""
    frames = split(data[1:])
    header = 0 if data[:1] == bytes([_FAULT]) else 1
    if len(frames) <= header or random.random() < 0.2:
        return bend_bytes(data, random)
    frames[header] = bend_msgpack(frames[header], random)
    return data[:1] + join(frames)


def seeds() -> Iterable[bytes]:
    for which, message in _MESSAGES:
        yield bytes([which]) + join(map(bytes, wire.encode(message, [b"code", b""])))
    for fault in _FAULTS:
        yield bytes([_FAULT]) + join([wire.encode_fault(fault)])
    yield b"\0" + join([b"WCP\2", b"\x80"])
    yield b"\0" + join([wire.PREAMBLE])
    yield b"\0" + join([wire.PREAMBLE, b"\x91" * 2000])


TARGET = Target(
    contract="RemoteProtocolError or a message that encodes to itself",
    one=one,
    mutate=mutate,
    seeds=seeds,
    words=(b"WCP\1", b"\xa4type", b"\xa6job_id", b"\xa7outcome", b"\xa5epoch", b"\xa7request", b"\xdf\xff\xff\xff\xff"),
    inputs=400_000,
    base_bytes=256 * 1024,
    per_byte=200,
)
