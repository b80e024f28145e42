"""A large job's payload on its way to the worker: in the message, or as a file that the job maps.

    frames of the payload   code, stdin, files, small arguments     ──▶ Run
                            arguments of MAPPED_BYTES and more      ──▶ empty in Run, which has their places in the file

The file is the one that the journal has written before the job was accepted. So these bytes are not copied again: not
into the link, not out of it, and not into the child.

A job whose file has what its worker may not have gets its payload in the message: the arguments of a grader, and those
of calls that run apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from pool import wire
from pool.daemon.job import JOB_BYTES, Job
from pool.daemon.journal import Journal
from pool.daemon.journal_entries import places
from pool.errors import LocalProtocolError

Mapped = tuple[tuple[int, int, int], ...]


class Body(NamedTuple):
    descriptor: int  #: reads the file; the owner closes it
    run: wire.Run  #: with `mapped`
    payload: Sequence[wire.Frame]  #: with nothing in the place of the frames that are mapped


def body_of(job: Job, run: wire.Run, journal: Journal) -> Body | None:
    """None: all of the payload goes into the message."""
    if job.held_bytes < JOB_BYTES + wire.MAPPED_BYTES or run.apart or job.grader is not None or job.whole is not None:
        return None
    first = 2 + len(run.files)
    mapped = _mapped([*map(len, job.payload)], first=first)
    if not mapped or (descriptor := journal.open_payload(job.number)) is None:
        return None
    payload = list(job.payload)
    for number, _, _ in mapped:
        payload[first + number] = b""
    run = msgspec.structs.replace(run, mapped=mapped)
    try:
        wire.encode(run)
    except LocalProtocolError:  # its header has no room for the places
        os.close(descriptor)
        return None
    return Body(descriptor, run, payload)


def offered(
    job: Job, run: wire.Run, journal: Journal, offer: Callable[[int], bool]
) -> tuple[wire.Run, Sequence[wire.Frame]]:
    """The part of a job that is sent. The rest is in a file that the worker is offered. `offer`: gets its descriptor;
    False if the worker cannot have it.
    """
    body = body_of(job, run, journal)
    if body is None or not offer(body.descriptor):
        return run, job.payload
    return body.run, body.payload


def _mapped(lengths: Sequence[int], *, first: int) -> Mapped:
    """Of the frames from the first one on."""
    starts, _ = places(lengths)
    found = enumerate(zip(starts[first:], lengths[first:], strict=True))
    return tuple((number, start, length) for number, (start, length) in found if length >= wire.MAPPED_BYTES)
