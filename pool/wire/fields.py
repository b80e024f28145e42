"""Base structs of the headers, and the field types with the lengths and ranges that are accepted."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from msgspec import Meta, Struct

from pool.outcome import Outcome
from pool.wire.caps import MAX_CALLS

Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"\A[A-Za-z0-9._:\-]+\Z")]
OptionalId = Annotated[str, Meta(max_length=128, pattern=r"\A[A-Za-z0-9._:\-]*\Z")]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Entry = Annotated[str, Meta(min_length=1, max_length=128)]
StreamName = Literal["stdout", "stderr"]
Text = Annotated[str, Meta(max_length=4096)]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 50)]
Count = Annotated[int, Meta(ge=0, le=1 << 62)]
Duration = Annotated[float, Meta(ge=0, le=1e9)]
FileName = Annotated[str, Meta(min_length=1, max_length=255)]
Files = Annotated[tuple[FileName, ...], Meta(max_length=256)]
Env = Annotated[dict[Annotated[str, Meta(max_length=256)], Annotated[str, Meta(max_length=8192)]], Meta(max_length=64)]
Argv = Annotated[tuple[Annotated[str, Meta(max_length=8192)], ...], Meta(max_length=256)]
Calls = Annotated[tuple[Count, ...], Meta(max_length=MAX_CALLS)]
Marks = Annotated[tuple[tuple[Name, Count], ...], Meta(max_length=256)]  #: a step, and when: CLOCK_MONOTONIC, ns
Scalars = dict[str, str | int | float | bool | None]


class Message(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every header."""


class JobFields(Message, frozen=True):
    """The fields that a job has on its way in (Submit) and on its way to the worker (Run)."""

    job_id: Id
    entry: Entry | None = None
    pickled: bool = False  #: the code frame is a cloudpickle of a callable, to be loaded in the sandbox only
    python: Annotated[str, Meta(max_length=16)] = ""  #: "3.11", the interpreter that pickled it
    files: Files = ()
    env: Env = {}
    argv: Argv = ()  #: what follows the name of the program in sys.argv
    seed: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)] | None = None
    calls: Calls = ()  #: of a chunk: how many frames of arguments each call has; (): no chunk, one call
    apart: bool = False  #: of a chunk: each call runs in a child of its own; its first frame is its stdin
    explain: bool = False  #: write every denied system call, and the line that made it, to the job's stderr
    trace: bool = False  #: note when each step of the job was done


class EndFields(Message, frozen=True):
    """The fields that describe how a job ended, from the worker (Done) and to the client (Result)."""

    job_id: Id
    outcome: Outcome
    reason: Text = ""
    files: Files = ()
    exit_code: int | None = None
    signal: int | None = None
    truncated: Annotated[tuple[Name, ...], Meta(max_length=4)] = ()
    stdout_bytes: Count = 0
    stderr_bytes: Count = 0
    cpu_s: Duration = 0.0
    max_rss_bytes: Count = 0


class AttemptFields(Message, frozen=True):
    """The attempt that a message is about: the job and the epoch of its lease."""

    job_id: Id
    epoch: Count


def is_relative_name(name: str) -> bool:
    """Whether a job may get or leave a file of this name: a relative path of plain parts, at most 255 bytes long."""
    try:
        fits = 0 < len(name.encode()) <= 255
    except UnicodeEncodeError:
        return False
    return fits and "\0" not in name and not any(part in {"", ".", ".."} for part in name.split("/"))


def misplaced(names: Collection[str]) -> str | None:
    """The first name that is not a relative path, or is below another name; None if all fit into one directory."""
    taken = set(names)
    for name in names:
        parents = {name[:at] for at, character in enumerate(name[:255]) if character == "/"}
        if not is_relative_name(name) or parents & taken:
            return name
    return None
