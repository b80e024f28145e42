"""The child: a process that is forked ahead of time, parks, runs one job, sends the answer and waits to be ended.

The order matters. Everything that needs a right which is given up comes first, and nothing that a client sent is used
before the last step.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import mmap
import os
import resource
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import msgspec

from pool import wire
from runner import (
    body,
    call_table,
    channel,
    exception_hooks,
    frames,
    generators,
    interpreter,
    kernel,
    output_files,
    program,
    streams,
    usage,
    warmup,
)
from runner.answer import ROOM_BYTES, Setting, answer, failure
from runner.call_table import CallTable
from runner.confinement import LIMITS, Confinement
from runner.denials import DenialReporter
from runner.fault import FILENAME
from runner.fork_server import CLOSED
from runner.huge_pages import releasing
from runner.kernel import Step

#: Of a child in its own pid namespace, where the init is process 1.
_PID = 2
#: One byte from the child: it is parked.
PARKED = b"p"
_request = msgspec.msgpack.Decoder(wire.Run)
#: A job's current directory, in its scratch space.
WORK = "work"
#: The name of a job's user. The daemon gives each worker an /etc/passwd with it.
USER = "job"
#: Words in the code of a program that may read its own file. The code of other programs is not written to a file.
_OWN_FILE = (b"__file__", b"__loader__", b"argv", interpreter.SCRIPT.removesuffix(".py").encode())
#: Words in the code of a program that may wait for its stdin, as asyncio does. The kernel lets it wait for no file.
_WATCHES = (b"connect_read_pipe", b"add_reader", b"epoll", b"DefaultSelector")
#: Its cache of compiled functions looks at the file that the byte code names.
_NUMBA = b"numba"
_WORDS = (*_OWN_FILE, *_WATCHES, _NUMBA)
#: Have their defaults in a job; Python itself ignores SIGPIPE. In the zygote they are blocked, whoever sends them.
_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Prepared(msgspec.Struct, frozen=True):
    """What the zygote has prepared for every child."""

    scratch: str
    work: str
    directories: CallTable  #: makes a job's directories, and enters the first
    parking: Sequence[Step]  #: all that a child does before it waits for a job
    first: bytearray  #: room for the first bytes of what comes: of a job, or WARM_UP
    size: ctypes.c_long  #: how many they are
    releasing: CallTable  #: unmaps what a warm-up has read of libraries
    setting: Setting
    confinement: Confinement
    sock: socket.socket  #: each child puts its channel in the place of this one's descriptor
    held_bytes: int  #: what the preloaded libraries hold; a job's memory limit comes on top of it


def prepare(scratch: Path, setting: Setting, confinement: Confinement, ends: Sequence[ctypes.c_int]) -> Prepared:
    """In the zygote, as the last of all: it counts what the zygote holds. `ends`: channel, stdout and stderr."""
    set_up(scratch)
    if confinement.nested:
        interpreter.note_thread(_PID)
    work = f"{scratch}/{WORK}"
    directories = [
        kernel.making_directory(work, 0o700),
        kernel.making_directory(f"{work}/{output_files.DIRECTORY}", 0o700),
        kernel.changing_directory(work),
    ]
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    first, size = bytearray(channel.FIRST_READ_BYTES), kernel.number()
    parking = [
        *call_table.taking_descriptors(sock.fileno(), ends),
        *generators.renewing(),
        *confinement.isolating,
        *(directories if confinement.own_scratch else ()),
        call_table.sending(sock.fileno(), PARKED),
        call_table.receiving(sock.fileno(), first, size)._replace(if_zero=CLOSED),
    ]
    return Prepared(
        scratch=str(scratch),
        work=work,
        directories=CallTable(directories),
        parking=parking,
        first=first,
        size=size,
        releasing=CallTable(releasing()),
        setting=setting,
        confinement=confinement,
        sock=sock,
        held_bytes=_held_bytes(confinement),
    )


def set_up(scratch: Path) -> None:
    """In the zygote, for all children: what would cost each of them many pages."""
    os.environ.update({"USER": USER, "LOGNAME": USER} | _fixed(scratch))
    streams.make()
    _set_signals()
    resource.setrlimit(resource.RLIMIT_CORE, (min(1, resource.getrlimit(resource.RLIMIT_CORE)[1]),) * 2)
    frames.set_up()
    interpreter.hide(scratch / WORK)
    exception_hooks.set_up()


def _set_signals() -> None:
    """As a job has them, but blocked until the child is apart from the zygote."""
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *_SIGNALS))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def live(prepared: Prepared, fork: Callable[[Sequence[Step]], None]) -> NoReturn:
    """The whole life of a child. `fork` returns in each child that the zygote forks, once that is parked."""
    status = 1
    try:
        fork(prepared.parking)
        _work(prepared.sock, prepared)
        status = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0  # the runner does not need this child any more
    except BaseException:  # noqa: BLE001 - the last frame of the process; the runner reads its stderr
        traceback.print_exc()
    finally:
        os._exit(status)  # without a clean-up, which would write to every page and so copy it


def _held_bytes(confinement: Confinement) -> int:
    """Private and writable, or of the address space, as the memory limit counts."""
    pages = usage.read_file("/proc/self/statm").split()
    return int(pages[5 if confinement.memory_limit == resource.RLIMIT_DATA else 0]) * mmap.PAGESIZE


def _warm_up(sock: socket.socket, prepared: Prepared) -> None:
    """Until a job is waiting."""
    for part in warmup.parts():
        warmup.run(part, prepared.setting)
        if select.select([sock], [], [], 0.0)[0]:
            break
    else:
        prepared.releasing.perform()
    interpreter.note_what_is_there()


def rehearse(prepared: Prepared) -> Prepared:
    """In the zygote: run jobs of ours as a child does, without limits and with all rights.

    So the interpreter has specialised the byte code of all that a child runs. Other code writes to the page of each
    name in it.
    """
    confinement = prepared.confinement
    sealing, confinement.sealing = confinement.sealing, dict.fromkeys((False, True), CallTable([]))
    for _ in range(warmup.ZYGOTE_ROUNDS):
        ours, theirs = socket.socketpair()
        with ours, theirs, warmup.without_traces():
            interpreter.note_what_is_there()
            channel.send(theirs, warmup.job(tmp=confinement.tmp_bytes))
            prepared.size.value = ours.recv_into(prepared.first)
            theirs.send(b"e")  # the child may end
            _work(ours, msgspec.structs.replace(prepared, directories=CallTable([])))
    confinement.sealing = sealing
    return msgspec.structs.replace(prepared, held_bytes=_held_bytes(confinement))


def _receive(sock: socket.socket, prepared: Prepared) -> list[bytearray]:
    """The frames of the job, of which the first bytes have come. Before it the child may have to warm up."""
    if not prepared.confinement.nested:
        interpreter.note_thread(os.getpid())
    got = prepared.first[: prepared.size.value]
    if got.startswith(channel.WARM_UP):
        del got[: len(channel.WARM_UP)]
        _warm_up(sock, prepared)
    return channel.receive(sock, got)


def _work(sock: socket.socket, prepared: Prepared) -> None:
    """Run the job that has come, and send the answer. The calls of a chunk begin when the runner says so."""
    header, code, compiled, stdin, *rest = _receive(sock, prepared)
    job = _request.decode(header)
    files = rest[: len(job.files)]
    arguments: Sequence[channel.Frame] = rest[len(job.files) :]
    if job.mapped:
        arguments = body.take(sock, job.mapped, arguments)
    first, *others = _calls(job, arguments) if job.calls else [arguments]
    program.current.byte_code = compiled
    run = partial(answer, job, bytes(code), setting=prepared.setting, send=partial(channel.send, sock))
    try:
        if job.env or job.seed is not None:
            _set_environment(job, Path(prepared.scratch))
        _confine(job, prepared)
        if job.apart:  # before anything of the job is used
            channel.send(sock, [channel.COMPILED, program.share(job, bytes(code), prepared.setting)])
        if not prepared.confinement.own_scratch:  # it held the last job's files when this child was parked
            prepared.directories.perform()
        if prepared.confinement.programs or job.files or stdin or any(map(code.__contains__, _WORDS)):
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
        channel.send(sock, _next_call(job, prepared.work, partial(run, arguments=each, last=number == len(others))))
    sock.recv(1)  # the runner reads what this process has used, then ends it


def _calls(job: wire.Run, arguments: Sequence[channel.Frame]) -> list[Sequence[channel.Frame]]:
    """The arguments of each call."""
    ends = list(itertools.accumulate(job.calls))
    return [arguments[end - size : end] for end, size in zip(ends, job.calls, strict=True)]


def _next_call(job: wire.Run, work: str, run: Callable[[], list[channel.Frame]]) -> list[channel.Frame]:
    """A call of a chunk finds its directory, its seed and its CPU limit as the first one did. What else the calls
    before it have changed stays, as it does in a program that calls a function many times.
    """
    try:
        os.chdir(work)
        output_files.clear(Path(work, output_files.DIRECTORY))
        if job.seed is not None:
            generators.seed(job.seed)
        _limit_cpu(job)
    except OSError as error:
        return failure(error)
    return run()


def _set_environment(job: wire.Run, scratch: Path) -> None:
    """Environment variables and random numbers."""
    if job.env:
        os.environ.update(job.env | _fixed(scratch))
    if job.seed is not None:
        generators.seed(job.seed)


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
    for name, content in zip(job.files, files, strict=True):
        if "/" in name:
            Path(prepared.work, name).parent.mkdir(parents=True, exist_ok=True)
        Path(prepared.work, name).write_bytes(content)
    # Interpreters that multiprocessing starts read the script too.
    texts = [code, *(content for name, content in zip(job.files, files, strict=True) if name.endswith(".py"))]
    reads_itself = prepared.confinement.programs or any(word in text for text in texts for word in _OWN_FILE)
    if reads_itself and not job.pickled and interpreter.SCRIPT not in job.files:
        _write_script(Path(prepared.work, interpreter.SCRIPT), code)
    if not job.pickled and _NUMBA in code:
        _write_script(Path(prepared.work, FILENAME), code)
    if len(stdin) <= streams.PIPE_BYTES and any(word in code for word in _WATCHES):
        streams.send_stdin(stdin)
    elif stdin:
        streams.write_stdin(prepared.scratch, stdin)


def _confine(job: wire.Run, prepared: Prepared) -> None:
    """Set soft limits, which end the job with a reason, and hard limits, which it cannot raise; give up all rights."""
    now_s, confinement = time.process_time(), prepared.confinement
    if job.tmp != confinement.tmp_bytes:
        confinement.resize(job.tmp)
    if job.explain:
        DenialReporter().install()
    most_s = math.ceil(now_s + job.cpu_s * max(1, len(job.calls))) + 1
    memory, tmp = prepared.held_bytes + job.memory + ROOM_BYTES, job.tmp
    processes = job.processes + (confinement.other_processes or 0)
    limits = math.ceil(now_s + job.cpu_s), most_s, memory, memory, tmp, tmp, processes, processes
    LIMITS.pack_into(confinement.limits, 0, *limits)
    confinement.sealing[job.explain].perform()


def _limit_cpu(job: wire.Run) -> None:
    """Of the next call of a chunk."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (min(math.ceil(time.process_time() + job.cpu_s), most), most))
