"""Asks a worker to try to break out of its own lockdown, and judges the answer, before the worker is ever leased.

The job is `probe_inside.py`, sent as text through the whole path, and run in a real child like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pool import values, wire
from pool.errors import RemoteProtocolError, ValueCodecError
from pool.printable import visible

PROBE_ID = "lockdown-probe"
_MOST_BYTES = 64 * 1024
_MOST_ROWS = 100
HELD, BROKEN, SKIPPED = "held", "broken", "skipped"
_INSIDE = Path(__file__).with_name("probe_inside.py")


@dataclass(frozen=True, slots=True)
class Row:
    """One attempt to break out."""

    probe: str
    verdict: str  #: held | broken | skipped
    seen: str


def job(limits: dict[str, Any], *, missing: Sequence[str], allow: Sequence[str]) -> tuple[wire.Run, list[wire.Frame]]:
    """The job, as it goes over the link."""
    arguments = (list(missing), list(allow), limits["processes"], limits["memory"], limits["tmp"])
    frames = values.encode((arguments, {}), max_bytes=_MOST_BYTES)
    return wire.Run(job_id=PROBE_ID, epoch=0, entry="main", screened=False, **limits), [
        _INSIDE.read_bytes(),
        b"",
        *frames,
    ]


def table(payload: Sequence[wire.Frame]) -> tuple[Row, ...]:
    """The rows of a value. It comes from a sandbox that is not proven yet: anything else raises RemoteProtocolError."""
    if sum(memoryview(frame).nbytes for frame in payload) > _MOST_BYTES:
        raise RemoteProtocolError("the table of the lockdown probe is too large")
    try:
        found = values.decode(payload[3:])
    except ValueCodecError as error:
        raise RemoteProtocolError(f"the lockdown probe gave no table: {error}") from None
    if not isinstance(found, list) or not 0 < len(found) <= _MOST_ROWS or not all(map(_is_row, found)):
        raise RemoteProtocolError("the lockdown probe gave something that is no table")
    return tuple(Row(*map(_bounded, row)) for row in found)


def _is_row(row: object) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 3
        and all(isinstance(each, str) for each in row)
        and row[1] in (HELD, BROKEN, SKIPPED)
    )


def _bounded(text: str) -> str:
    return visible(text[:200])[:200]


def broken(rows: Sequence[Row]) -> str:
    """In words, what did not hold; "" when all did."""
    return "; ".join(f"{row.probe} ({row.seen})" for row in rows if row.verdict == BROKEN)
