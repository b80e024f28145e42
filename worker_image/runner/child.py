"""The process that runs one job and dies. It is forked ahead, gets ready, parks, runs, answers and exits.

Order matters: everything that needs a right that is about to be given up comes first, and nothing of a client's is
touched before the last step.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from pool import wire
from runner import channel, kernel, outbox
from runner.confine import Confinement
from runner.denials import Teller
from runner.execution import ROOM_BYTES, Setting, execute, failure
from runner.rehearsal import parts, rehearse

#: How long a loop that sends one job after the other takes to send the next.
_THINKING_S = 0.002
#: One byte from the child: it is parked.
PARKED = b"p"
_STREAMS = (("stdin", "r", "replace"), ("stdout", "w", "backslashreplace"), ("stderr", "w", "backslashreplace"))
_request = msgspec.msgpack.Decoder(wire.Run)
#: A job's current directory, in its scratch space.
WORK = "work"
#: Reset for the job: the runner and the zygote ignore what a job could send them. Python itself ignores SIGPIPE.
_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Held(NamedTuple):
    """Bytes of a child before its job."""

    data: int  #: private and writable
    mapped: int  #: of its address space


@dataclass(frozen=True, slots=True)
class Cradle:
    """What the zygote has ready for every child."""

    scratch: Path
    setting: Setting
    confinement: Confinement


def live(sock: socket.socket, cradle: Cradle) -> None:
    """The whole life of a child, after the fork. Never returns."""
    status = 1
    try:
        own_status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        _detach()
        cradle.confinement.isolate()
        os.umask(0o077)
        kernel.die_with_parent()  # again: new credentials may have cleared it
        plain, *others = parts()
        rehearse(plain, cradle.setting)
        held = _held_bytes(own_status)
        sock.sendall(PARKED)
        _rehearse_while_parked(others, sock, cradle.setting)
        _work(sock, cradle, held)
        status = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0  # the runner has no use for this child any more
    except BaseException:  # noqa: BLE001 - this is the last frame of the process; the words go to the job's stderr
        traceback.print_exc()
    finally:
        os._exit(status)  # no clean-up that would touch, and so copy, every page


def _rehearse_while_parked(libraries: Sequence[str], sock: socket.socket, setting: Setting) -> None:
    """A loop that does not think has sent its next job by now; for all others there is time to get ready for theirs."""
    for library in libraries:
        if select.select([sock], [], [], _THINKING_S)[0]:
            return
        rehearse(library, setting)


def _detach() -> None:
    os.setsid()
    kernel.die_with_parent()
    _offer_to_oom_killer()
    resource.setrlimit(resource.RLIMIT_CORE, (min(1, resource.getrlimit(resource.RLIMIT_CORE)[1]),) * 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    _renew_streams()
    _reseed(None)


def _renew_streams() -> None:
    """Objects of its own on 0, 1 and 2: the zygote's knew other files. A line goes out when it is whole."""
    for number, (name, mode, errors) in enumerate(_STREAMS):
        buffering = 1 if mode == "w" else -1
        stream = open(number, mode, buffering, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _offer_to_oom_killer() -> None:
    """When the worker runs out of memory the child goes first."""
    with contextlib.suppress(OSError):
        kernel.write_own([("/proc/self/oom_score_adj", b"1000")])


def _reseed(seed: int | None) -> None:
    """Forks of one zygote would all draw the same numbers; `seed` makes two runs of a job draw the same."""
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed)


def _work(sock: socket.socket, cradle: Cradle, held: Held) -> None:
    header, code, stdin, *rest = channel.receive(sock)
    job = _request.decode(header)
    files, arguments = rest[: len(job.files)], rest[len(job.files) :]
    teller = Teller() if job.explain else None
    try:
        _settle(job, cradle.scratch)
        if teller is not None:
            teller.install()
        cradle.confinement.seal(tmp_bytes=job.tmp, explain=job.explain)
        _unpack(job, stdin, files, cradle.scratch)
        _limit(job, held, cradle.confinement)
        answer = execute(job, bytes(code), arguments, cradle.setting)
    except OSError as error:  # its input does not fit into the scratch space
        answer = failure(error)
    channel.send(sock, answer)
    sock.recv(1)  # the runner reads what this process has used, and ends it


def _settle(job: wire.Run, scratch: Path) -> None:
    """Environment and random numbers of this job."""
    work = scratch / WORK
    os.environ.update(job.env, HOME=str(work), TMPDIR=str(scratch), **{outbox.VARIABLE: str(work / outbox.DIRECTORY)})
    if job.seed is not None:
        _reseed(job.seed)


def _unpack(job: wire.Run, stdin: bytearray, files: Sequence[bytearray], scratch: Path) -> None:
    """Its work directory with its files; after a change of size, which asks for a right that is gone by now."""
    work = scratch / WORK
    (work / outbox.DIRECTORY).mkdir(parents=True)
    os.chdir(work)
    for name, content in zip(job.files, files, strict=True):
        (work / name).write_bytes(content)
    _feed_stdin(stdin, scratch)


def _feed_stdin(stdin: bytearray, scratch: Path) -> None:
    if not stdin:
        return
    with open(os.open(scratch, os.O_RDWR | os.O_TMPFILE, 0o600), "w+b", buffering=0) as held:  # noqa: PTH123 - a descriptor
        rest = memoryview(stdin)
        while rest:
            rest = rest[held.write(rest) :]
        held.seek(0)
        os.dup2(held.fileno(), 0)


def _limit(job: wire.Run, held: Held, confinement: Confinement) -> None:
    """Soft limits that end the job with a reason, hard ones that it cannot lift. `held`: bytes not of the job."""
    seconds = math.ceil(time.process_time() + job.cpu_s)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (job.tmp, job.tmp))
    kind, before = confinement.memory_limit(*held)
    most = before + job.memory + ROOM_BYTES
    resource.setrlimit(kind, (most, most))
    if (processes := confinement.process_limit(job.processes)) is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))


def _held_bytes(status: int) -> Held:
    """What the preloaded libraries hold already: the job's memory comes on top of it."""
    text = os.read(status, 4096)
    os.close(status)
    return Held(*(int(text.partition(name)[2].split(None, 1)[0]) * 1024 for name in (b"VmData:", b"VmSize:")))
