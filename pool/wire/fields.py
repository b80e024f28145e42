"""What a header is made of: the base of all of them, and the fields with the lengths and ranges that are let in."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"\A[A-Za-z0-9._:\-]+\Z")]
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


class Message(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every header."""


def is_relative_name(name: str) -> bool:
    """Whether a file that a job left may have this name: a path of plain parts that stays below where it is written."""
    try:
        fits = 0 < len(name.encode()) <= 255
    except UnicodeEncodeError:
        return False
    return fits and "\0" not in name and not any(part in {"", ".", ".."} for part in name.split("/"))
