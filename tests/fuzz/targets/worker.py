"""A worker's whole conversation with the daemon, from its first word on: an input is the words, one after another.

A word is a byte that says which, and bytes that fill it in; `_receive` passes it on as the controller does. Words that were
made here are valid ones at the wrong time; words in raw bytes are anything that decodes.
"""

from collections.abc import Callable, Iterable, Sequence
from random import Random

import msgspec

from pool import values, wire
from pool.daemon.output import OutputStream
from pool.daemon.self_tests import StartCheck, StartFailed
from pool.daemon.worker_protocol import MAX_TEXT, Effect, Phase, WorkerProtocol, check_answer
from pool.errors import RemoteProtocolError
from pool.model import Outcome
from tests.fuzz.frames import join, split
from tests.fuzz.mutate import bend_bytes, bend_msgpack
from tests.fuzz.target import Target

_LIMITS = {
    "wall_s": 1.0, "cpu_s": 1.0, "memory": 1 << 28, "tmp": 1 << 20, "output": 1 << 16, "result": 1 << 16, "processes": 4,
}  # fmt: skip
_JOBS = ("noop", "lockdown-probe", "j", "other")
_OUTCOMES = tuple(Outcome)
_LARGEST = 2048
_PRINTS = 8  #: bytes that a job may print
_UNHEARD = 3  #: the epoch in which nobody asks for output
_ROWS = [["network", "held", "EPERM"], ["mount", "skipped", ""]]
_BROKEN = [["network", "broken", "connected\x1b[2J"]]
_SOURCES = "s"

Word = tuple[wire.FromRunner, Sequence[wire.Frame]]


def _answer(rest: bytes) -> list[wire.Frame]:
    """Payload of Done: the right value, a table, or what the input says."""
    known: dict[int, object] = {0: [41, 42], 1: _ROWS, 2: _BROKEN, 3: [41]}
    if rest[3:4] and rest[3] in known:
        return [b"", b"", b"", *map(bytes, values.encode(known[rest[3]], max_bytes=_LARGEST))]
    return list(split(rest[4:]))


def _done(rest: bytes) -> Word:
    job, epoch, outcome = rest[:3].ljust(3, b"\0")
    message = wire.Done(job_id=_JOBS[job % 4], epoch=epoch % 4, outcome=_OUTCOMES[outcome % len(_OUTCOMES)])
    return message, _answer(rest)


def _text(rest: bytes) -> str:
    return rest.decode(errors="replace")[:MAX_TEXT]


_WORDS: dict[int, Callable[[bytes], Word]] = {
    0: lambda rest: (wire.Hello(runner=_text(rest), sources=_SOURCES, python="3.11"), ()),
    1: lambda rest: (
        wire.Ready(boot_ms=1, preload_ms=1, isolation="plain", missing=(_text(rest),) if rest else ()),
        (),
    ),
    2: lambda rest: (wire.Started(job_id=_JOBS[sum(rest[:1]) % 4], epoch=sum(rest[1:2]) % 4), ()),
    3: _done,
    4: lambda rest: (wire.Freed(epoch=sum(rest[:1]) % 4, residue=_text(rest[1:])), ()),
    5: lambda rest: (wire.Heartbeat(seq=len(rest)), ()),
    6: lambda rest: (wire.Broken(reason=_text(rest)), ()),
    7: lambda rest: wire.decode(wire.from_runner, split(rest)),
}
_LEASE = 8
_CLOCK = 9


class _Worker:
    """One worker as the controller has it, without the rest of the daemon."""

    def __init__(self, *, verified: bool) -> None:
        self.protocol = WorkerProtocol(StartCheck(sources=_SOURCES, limits=_LIMITS, verified=verified), heartbeat_s=2)
        self.output = OutputStream("j", limit=_PRINTS)
        self._now = 0.0
        self._epoch = 0

    def take(self, word: bytes) -> None:
        which, rest = word[0] % 10 if word else 5, word[1:]
        if which == _CLOCK:
            self._now += sum(rest[:1]) / 16
        elif which == _LEASE:
            self._lease()
        else:
            self._receive(*_WORDS[which](rest))

    def _lease(self) -> None:
        if self.protocol.phase is Phase.IDLE:
            self._epoch = self._epoch % 3 + 1
            self.protocol.lease("j", self._epoch)
            self.output = OutputStream("j", limit=_PRINTS)
            if self._epoch != _UNHEARD:
                assert self.protocol.stream()
                self.output.start(self._now)

    def _receive(self, sent: wire.FromRunner, payload: Sequence[wire.Frame]) -> None:
        effect, message = self.protocol.receive(sent, payload, self._now)
        _check_shown(message)
        if effect is Effect.PRINTED:
            assert self._epoch != _UNHEARD
            self.output.append(message, payload, self._now)
        elif effect is Effect.DONE:
            check_answer(message, payload, largest=_LARGEST)
            self.output.check(payload)


def _check_shown(message: wire.FromRunner) -> None:
    for value in msgspec.structs.astuple(message):
        for text in value if isinstance(value, tuple) else (value,):
            assert not isinstance(text, str) or (text.isprintable() and len(text) <= MAX_TEXT)


def one(data: bytes) -> None:
    worker = _Worker(verified=bool(data[:1] and data[0] & 1))
    try:
        for word in split(data[1:]):
            worker.take(word)
    except (RemoteProtocolError, StartFailed) as error:
        str(error).encode(errors="surrogatepass")
    assert all(len(each) <= _PRINTS for each in worker.output.frames)
    start = worker.protocol.start
    if not worker.protocol.starting:
        assert start.test is None
        assert bool(start.rows) is start.verified
        assert all(row.verdict != "broken" and row.seen.isprintable() for row in start.rows)


def mutate(data: bytes, random: Random) -> bytes:
    """Words swapped, doubled, left out, put in; or one of them bent."""
    words = split(data[1:])
    if not words or random.random() < 0.1:
        return bend_bytes(data, random)
    at = random.randrange(len(words))
    match random.randrange(6):
        case 0:
            del words[at]
        case 1:
            words.insert(random.randrange(len(words) + 1), words[at])
        case 2:
            other = random.randrange(len(words))
            words[at], words[other] = words[other], words[at]
        case 3:
            words.insert(at, bytes([random.randrange(10)]) + random.randbytes(random.choice((0, 1, 2, 4))))
        case 4 if words[at][:1] == b"\7":
            frames = split(words[at][1:])
            words[at] = b"\7" + join([*frames[:1], *(bend_msgpack(frame, random) for frame in frames[1:])])
        case _:
            words[at] = bend_bytes(words[at], random)
    return data[:1] + join(words)


_UP = [b"\0", b"\1", b"\2\0\0", b"\3\0\0\0\0", b"\4\0"]
_PROVEN = [b"\2\1\0", b"\3\1\0\0\1", b"\4\0"]
_JOB = [b"\x08", b"\2\2\1", b"\3\2\1\0\0", b"\4\1"]


def _raw(message: wire.Message, *payload: bytes) -> bytes:
    return b"\7" + join(map(bytes, wire.encode(message, payload)))


def seeds() -> Iterable[bytes]:
    yield b"\0" + join([*_UP, b"\5", *_JOB, b"\5"])
    yield b"\1" + join([*_UP, *_PROVEN, *_JOB, b"\x09\xff", b"\5"])
    yield b"\1" + join([*_UP, b"\2\1\0", b"\3\1\0\0\2"])
    yield b"\0" + join([*_UP, *([b"\5"] * 20)])
    yield b"\0" + join([b"\0\x1b[2J", b"\1landlock\n", b"\6bro\xe2\x80\xaeken"])
    yield b"\1" + join(
        [
            _raw(wire.Hello(runner="1", sources=_SOURCES, python="3.11")),
            _raw(wire.Ready(boot_ms=1, preload_ms=2, isolation="namespaces", missing=("x",))),
        ]
    )
    yield b"\0" + join(
        [
            *_UP,
            b"\x08",
            _raw(wire.Started(job_id="j", epoch=1)),
            _raw(
                wire.Done(job_id="j", epoch=1, outcome=Outcome.OK, files=("f",), exit_code=0, truncated=("stdout",)),
                b"",
                b"",
                b"",
                b"f",
            ),
            _raw(wire.Freed(epoch=1)),
        ]
    )
    yield b"\0" + join(
        [
            *(*_UP, b"\x08", b"\2\2\1"),
            _raw(wire.Printed(job_id="j", epoch=1, name="stdout", offset=0), b"out"),
            _raw(wire.Printed(job_id="j", epoch=1, name="stderr", offset=0), b"err"),
            _raw(wire.Printed(job_id="j", epoch=1, name="stdout", offset=3), b"more"),
            _raw(wire.Done(job_id="j", epoch=1, outcome=Outcome.OK), b"outmore", b"error", b""),
            b"\4\1",
        ]
    )
    yield b"\0" + join([*_UP[:3], b"\3\0\0\0\x09" + join([b"", b"", b"", b"\x92\x29\x2a"]), b"\4\0"])


TARGET = Target(
    contract="RemoteProtocolError or StartFailed; only an honest worker is up",
    one=one,
    mutate=mutate,
    seeds=seeds,
    words=(b"\0\1\0", b"\0\1\1", b"\0\3\2\0\0", b"\0\5\3\0\0\0\0", b"\0\2\4\0", b"\0\1\x08", b"WCP\1"),
    inputs=200_000,
    base_bytes=1 << 20,
    per_byte=2000,
)
