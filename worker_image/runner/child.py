"""The child: a process that is forked ahead of time, parks, runs one job, sends the answer and waits to be ended.

The order matters. Everything that needs a right which is given up comes first, and nothing that a client sent is used
before the last step.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import mmap
import os
import random
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from pool import wire
from runner import channel, frames, interpreter, kernel, output_files, program, warmup
from runner.answer import ROOM_BYTES, Setting, answer, failure
from runner.confinement import Confinement
from runner.denials import DenialReporter
from runner.fault import FILENAME
from runner.kernel import Step

#: A child warms up if no job has come in this time.
_IDLE_S = 0.05
#: One byte from the child: it is parked.
PARKED = b"p"
#: As in a plain interpreter in the locale C.UTF-8.
_STREAMS = (("stdin", "r", "surrogateescape"), ("stdout", "w", "surrogateescape"), ("stderr", "w", "backslashreplace"))
_request = msgspec.msgpack.Decoder(wire.Run)
#: A job's current directory, in its scratch space.
WORK = "work"
#: The name of a job's user. The daemon gives each worker an /etc/passwd with it.
USER = "job"
#: Words in the code of a program that may read its own file. The code of other programs is not written to a file.
_OWN_FILE = (b"__file__", b"__loader__", b"argv", interpreter.SCRIPT.removesuffix(".py").encode())
#: Its cache of compiled functions looks at the file that the byte code names.
_NUMBA = b"numba"
#: Set back to their defaults for the job. The runner and the zygote ignore them; Python itself ignores SIGPIPE.
_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
#: Gives NumPy's global generator a new state; empty where that is not possible.
_RENEWING: list[Step] = []


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the zygote has prepared for every child."""

    scratch: Path
    setting: Setting
    confinement: Confinement

    def begin(self, sock: socket.socket, out: int, err: int) -> NoReturn:
        """The whole life of a child that was just forked."""
        take_descriptors(sock, out, err)
        live(sock, self)


def set_up(scratch: Path) -> None:
    """In the zygote, for all children: what would cost each of them many pages."""
    os.environ.update({"USER": USER, "LOGNAME": USER} | _fixed(scratch))
    _make_streams()
    _prepare_numpy_random()
    frames.set_up()
    interpreter.hide(scratch / WORK)


def _make_streams() -> None:
    """Objects for 0, 1 and 2 whose files are of the kind that a child has. Output is sent line by line."""
    kept = [os.dup(number) for number in range(3)]
    null, (reading, writing) = os.open(os.devnull, os.O_RDONLY), os.pipe()
    for number, ((name, mode, errors), source) in enumerate(zip(_STREAMS, (null, writing, writing), strict=True)):
        os.dup2(source, number)
        buffering = 1 if mode == "w" else -1
        stream: Any = open(number, mode, buffering, "utf-8", errors, "\n", closefd=False)  # noqa: SIM115
        stream.buffer.raw.name = f"<{name}>"
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
        os.dup2(kept[number], number)
    for fd in (*kept, null, reading, writing):
        os.close(fd)


def take_descriptors(sock: socket.socket, out: int, err: int) -> None:
    """After the fork: keep the standard streams and the channel, and close every other descriptor."""
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    kept = sock.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    signal.set_wakeup_fd(-1)


def live(sock: socket.socket, prepared: Prepared) -> NoReturn:
    """The whole life of a child. Never returns."""
    status = 1
    try:
        own_status = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        _detach()
        prepared.confinement.isolate()
        os.umask(0o077)
        kernel.die_with_parent()  # again, for new credentials may have cleared it
        held = _held_bytes(own_status, prepared.confinement)
        if prepared.confinement.own_scratch:
            _make_directories(prepared.scratch)
        sock.sendall(PARKED)
        _warm_up_while_idle(sock, prepared.setting)
        interpreter.note_what_is_there()
        _work(sock, prepared, held)
        status = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0  # the runner does not need this child any more
    except BaseException:  # noqa: BLE001 - the last frame of the process; the runner reads its stderr
        traceback.print_exc()
    finally:
        os._exit(status)  # without a clean-up, which would write to every page and so copy it


def _detach() -> None:
    os.setsid()
    kernel.die_with_parent()
    with contextlib.suppress(OSError):  # when the worker runs out of memory, the child is killed first
        kernel.write_own([("/proc/self/oom_score_adj", b"1000")])
    resource.setrlimit(resource.RLIMIT_CORE, (min(1, resource.getrlimit(resource.RLIMIT_CORE)[1]),) * 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    _draw_other_numbers()


def _prepare_numpy_random() -> None:
    """In the zygote: NumPy's global generator is to be given a new state in each child by the kernel.

    Its own function for that is slow in a child. The state is 624 words, and after them the position, which stays that
    of a generator that was just seeded. Where this NumPy keeps it in another way, its own function is called.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy.random, "get_bit_generator"):
        return
    numpy.random.seed()
    words, address = numpy.random.get_state()[1], numpy.random.get_bit_generator().ctypes.state_address
    if ctypes.string_at(address, words.nbytes) == words.tobytes():
        _RENEWING.append(kernel.calling("getrandom", ctypes.c_void_p(address), words.nbytes, 0))


def _draw_other_numbers() -> None:
    """Without this all forks of a zygote would draw the same ones."""
    if _RENEWING:
        kernel.perform(_RENEWING)  # the module random does it for itself, after each fork
    else:
        _seed(None)


def _seed(seed: int | None) -> None:
    """Jobs with the same seed draw the same numbers."""
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed)


def _held_bytes(status: int, confinement: Confinement) -> int:
    """What the preloaded libraries hold: private and writable, or of the address space, as the memory limit counts.

    The job's limit comes on top of it. `status`: of /proc/self/statm.
    """
    pages = os.read(status, 4096).split()
    os.close(status)
    return int(pages[5 if confinement.memory_limit == resource.RLIMIT_DATA else 0]) * mmap.PAGESIZE


def _make_directories(scratch: Path) -> None:
    for directory in (f"{scratch}/{WORK}", f"{scratch}/{WORK}/{output_files.DIRECTORY}"):
        os.mkdir(directory)  # noqa: PTH102
    os.chdir(f"{scratch}/{WORK}")


def _warm_up_while_idle(sock: socket.socket, setting: Setting) -> None:
    """Until a job is waiting."""
    idle_s = _IDLE_S
    for part in warmup.parts():
        if select.select([sock], [], [], idle_s)[0]:
            return
        warmup.run(part, setting)
        idle_s = 0.0


def _work(sock: socket.socket, prepared: Prepared, held: int) -> None:
    """Wait for the job, run it, send the answer. The calls of a chunk begin when the runner says so."""
    header, code, compiled, stdin, *rest = channel.receive(sock)
    job = _request.decode(header)
    files, arguments = rest[: len(job.files)], rest[len(job.files) :]
    denials = DenialReporter() if job.explain else None
    first, *others = _calls(job, arguments) if job.calls else [arguments]
    program.Current.byte_code = compiled
    run = partial(answer, job, bytes(code), setting=prepared.setting, send=partial(channel.send, sock))
    try:
        if job.env or job.seed is not None:
            _set_environment(job, prepared.scratch)
        if denials is not None:
            denials.install()
        prepared.confinement.seal(tmp_bytes=job.tmp, explain=job.explain)
        _limit(job, held, prepared.confinement)
        if job.apart:  # before anything of the job is used
            channel.send(sock, [channel.COMPILED, program.share(job, bytes(code), prepared.setting)])
        _write_files(job, code, stdin, files, prepared)
        if job.argv or job.files:
            interpreter.show_arguments(job.argv, job.files)
        frames = run(arguments=first, last=not others)
    except OSError as error:  # its files do not fit into the scratch space
        frames = failure(error)
    channel.send(sock, frames)
    del frames
    for number, each in enumerate(others, 1):
        if not sock.recv(1):
            return
        channel.send(sock, _next_call(job, prepared.scratch, partial(run, arguments=each, last=number == len(others))))
    sock.recv(1)  # the runner reads what this process has used, then ends it


def _calls(job: wire.Run, arguments: Sequence[bytearray]) -> list[Sequence[bytearray]]:
    """The arguments of each call."""
    ends = list(itertools.accumulate(job.calls))
    return [arguments[end - size : end] for end, size in zip(ends, job.calls, strict=True)]


def _next_call(job: wire.Run, scratch: Path, run: Callable[[], list[channel.Frame]]) -> list[channel.Frame]:
    """A call of a chunk finds its directory, its seed and its CPU limit as the first one did. What else the calls
    before it have changed stays, as it does in a program that calls a function many times.
    """
    try:
        os.chdir(scratch / WORK)
        output_files.clear(scratch / WORK / output_files.DIRECTORY)
        if job.seed is not None:
            _seed(job.seed)
        _limit_cpu(job)
    except OSError as error:
        return failure(error)
    return run()


def _set_environment(job: wire.Run, scratch: Path) -> None:
    """Environment variables and random numbers."""
    if job.env:
        os.environ.update(job.env | _fixed(scratch))
    if job.seed is not None:
        _seed(job.seed)


def _fixed(scratch: Path) -> dict[str, str]:
    """Variables that a job cannot choose."""
    work = scratch / WORK
    return {"HOME": str(work), "TMPDIR": str(scratch), output_files.VARIABLE: str(work / output_files.DIRECTORY)}


def _write_script(path: Path, code: bytearray) -> None:
    """For programs that may read their own file. It may be missing where the scratch space is smaller than the code."""
    try:
        path.write_bytes(code)
    except OSError:
        path.unlink(missing_ok=True)


def _write_files(
    job: wire.Run, code: bytearray, stdin: bytearray, files: Sequence[bytearray], prepared: Prepared
) -> None:
    """The work directory with the job's files, and its stdin. Called after the scratch space has its final size."""
    work = prepared.scratch / WORK
    if not prepared.confinement.own_scratch:  # it held the last job's files when this child was parked
        _make_directories(prepared.scratch)
    for name, content in zip(job.files, files, strict=True):
        if "/" in name:
            (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(content)
    # Interpreters that multiprocessing starts read the script too.
    texts = [code, *(content for name, content in zip(job.files, files, strict=True) if name.endswith(".py"))]
    reads_itself = prepared.confinement.programs or any(word in text for text in texts for word in _OWN_FILE)
    if reads_itself and not job.pickled and interpreter.SCRIPT not in job.files:
        _write_script(work / interpreter.SCRIPT, code)
    if not job.pickled and _NUMBA in code:
        _write_script(work / FILENAME, code)
    if stdin:
        _write_stdin(prepared.scratch, stdin)


def _write_stdin(scratch: Path, stdin: bytearray) -> None:
    descriptor = os.open(scratch, os.O_RDWR | os.O_TMPFILE, 0o600)
    with open(descriptor, "w+b", buffering=0) as held:  # noqa: PTH123 - a descriptor
        rest = memoryview(stdin)
        while rest:
            rest = rest[held.write(rest) :]
        held.seek(0)
        os.dup2(held.fileno(), 0)


def _limit_cpu(job: wire.Run) -> None:
    """Of the next call of a chunk."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (min(math.ceil(time.process_time() + job.cpu_s), most), most))


def _limit(job: wire.Run, held: int, confinement: Confinement) -> None:
    """Soft limits, which end the job with a reason, and hard limits, which the job cannot raise."""
    now_s = time.process_time()
    most = math.ceil(now_s + job.cpu_s * max(1, len(job.calls))) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(now_s + job.cpu_s), most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (job.tmp, job.tmp))
    most = held + job.memory + ROOM_BYTES
    resource.setrlimit(confinement.memory_limit, (most, most))
    if confinement.other_processes is not None:
        processes = job.processes + confinement.other_processes
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
