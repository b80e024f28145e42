"""The first frame of a child's answer: a fixed struct, so that the runner decodes nothing that a job made.

    ┌────────────┬────────────┬──────────┬──────────┬──────────────┬────────────┐
    │ u8 outcome │ i32 exit   │ u8 about │ u8 files │ u64 started  │ u64 ended  │      big endian; CLOCK_MONOTONIC, ns
    └────────────┴────────────┴──────────┴──────────┴──────────────┴────────────┘

The frames after it are [error, *(file name, content), *value]. A child can only claim one of CLAIMS; all other
outcomes are the runner's to give, from what the kernel told it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from pool import wire
from pool.model import Outcome

_LAYOUT = struct.Struct("!BiBBQQ")

#: What a child may say of itself, by its number on the channel.
CLAIMS = (Outcome.OK, Outcome.ERROR, Outcome.MEMORY, Outcome.OUTPUT, Outcome.REJECTED)
#: What its error is about, by its number on the channel: a limit, its own value, or what only the error itself says.
ABOUT = ("", "tmp", "nofile", "processes", "value", "inodes")
NO_EXIT_CODE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    outcome: Outcome
    started_ns: int
    ended_ns: int
    exit_code: int | None = None
    about: str = ""
    files: int = 0

    def pack(self) -> bytes:
        code = NO_EXIT_CODE if self.exit_code is None else self.exit_code
        claim, about = CLAIMS.index(self.outcome), ABOUT.index(self.about)
        return _LAYOUT.pack(claim, code, about, self.files, self.started_ns, self.ended_ns)


def read(frames: Sequence[bytes | bytearray]) -> Report | None:
    """The report of a whole answer. None for anything but an answer, or for one with a file that has no proper name."""
    claim = unpack(frames[0]) if len(frames) >= 2 else None
    if claim is None or len(frames) < 2 + 2 * claim.files:
        return None
    wanted = claim.files
    return claim if wanted <= wire.MAX_FILES_OUT and len(names(frames[2 : 2 + 2 * wanted : 2])) == wanted else None


def names(frames: Sequence[bytes | bytearray]) -> tuple[str, ...]:
    """The names of files, each once, in order; what is none is left out."""
    found = dict.fromkeys(bytes(frame[:256]).decode(errors="replace") for frame in frames if len(frame) <= 255)
    return tuple(name for name in found if wire.is_relative_name(name) and "\ufffd" not in name)


def unpack(frame: bytes | bytearray) -> Report | None:
    """None for anything but a report."""
    if len(frame) != _LAYOUT.size:
        return None
    claim, code, about, files, started_ns, ended_ns = _LAYOUT.unpack(frame)
    if claim >= len(CLAIMS) or about >= len(ABOUT):
        return None
    return Report(
        outcome=CLAIMS[claim],
        started_ns=started_ns,
        ended_ns=ended_ns,
        exit_code=None if code == NO_EXIT_CODE else code & 0xFF,
        about=ABOUT[about],
        files=files,
    )
