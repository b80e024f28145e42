"""The first frame of a child's answer: a fixed struct, so that the runner decodes nothing that a job made.

    ┌────────────┬────────────┬──────────┬──────────────┬────────────┐
    │ u8 outcome │ i32 exit   │ u8 files │ u64 started  │ u64 ended  │      big endian; stamps are CLOCK_MONOTONIC, ns
    └────────────┴────────────┴──────────┴──────────────┴────────────┘

The frames after it are [error, *file names and contents, *value]. A child can only claim one of CLAIMS; all other
outcomes are the runner's to give, from what the kernel told it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pool.model import Outcome

_LAYOUT = struct.Struct("!BiBQQ")

#: What a child may say of itself, by its number on the channel.
CLAIMS = (Outcome.OK, Outcome.ERROR, Outcome.MEMORY, Outcome.OUTPUT, Outcome.REJECTED)
NO_EXIT_CODE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    outcome: Outcome
    started_ns: int
    ended_ns: int
    exit_code: int | None = None
    files: int = 0

    def pack(self) -> bytes:
        code = NO_EXIT_CODE if self.exit_code is None else self.exit_code
        return _LAYOUT.pack(CLAIMS.index(self.outcome), code, self.files, self.started_ns, self.ended_ns)


def unpack(frame: bytes | bytearray) -> Report | None:
    """None for anything but a report."""
    if len(frame) != _LAYOUT.size:
        return None
    claim, code, files, started_ns, ended_ns = _LAYOUT.unpack(frame)
    if claim >= len(CLAIMS):
        return None
    return Report(
        outcome=CLAIMS[claim],
        started_ns=started_ns,
        ended_ns=ended_ns,
        exit_code=None if code == NO_EXIT_CODE else code & 0xFF,
        files=files,
    )
