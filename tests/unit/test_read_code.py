"""Which code a worker need not read again: code that has ended ok there, known by its text."""

from __future__ import annotations

import msgspec
import pytest
from runner import read_code
from runner.read_code import ReadCode

from pool import wire
from pool.model import Outcome

JOB = wire.Run(
    job_id="j", epoch=1, entry="main", wall_s=1, cpu_s=1, memory=1, tmp=1, output=1, result=1, processes=1
)  # fmt: skip
HEADER = msgspec.msgpack.encode(JOB)


def is_read(code, kept, **fields):
    """Whether the child of a job with this code is told to read it. All else comes as it was."""
    header, *payload = kept.frames(msgspec.structs.replace(JOB, **fields), [HEADER, code, b"stdin", b"argument"])
    assert payload == [code, b"stdin", b"argument"]
    if header == HEADER:
        return True
    given = msgspec.msgpack.decode(header, type=wire.Run)
    assert given == msgspec.structs.replace(JOB, screened=False)
    return False


def test_code_that_has_ended_ok_is_not_read_again():
    kept = ReadCode()
    assert is_read(b"a", kept)
    kept.ended(Outcome.OK)
    assert not is_read(b"a", kept)
    assert is_read(b"b", kept)


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.OK])
def test_code_that_has_ended_otherwise_is_read_again(outcome):
    kept = ReadCode()
    assert is_read(b"a", kept)
    kept.ended(outcome)
    assert is_read(b"a", kept)


@pytest.mark.parametrize("fields", [{"screened": False}, {"pickled": True}])
def test_what_was_not_read_counts_for_nothing(fields):
    kept = ReadCode()
    assert is_read(b"a", kept, **fields)
    kept.ended(Outcome.OK)
    assert is_read(b"a", kept)


def test_the_texts_that_were_used_last_are_kept(monkeypatch):
    monkeypatch.setattr(read_code, "_MOST", 2)
    kept = ReadCode()
    for code in (b"a", b"b", b"a", b"c"):
        is_read(code, kept)
        kept.ended(Outcome.OK)
    assert [is_read(code, kept) for code in (b"a", b"b", b"c")] == [False, True, False]
