"""Which code a worker need not read again, and whose byte code a child gets: by the text of the job."""

import msgspec
import pytest
from runner import code_cache
from runner.code_cache import CodeCache

from pool import wire
from pool.model import Outcome

JOB = wire.Run(
    job_id="j", epoch=1, entry="main", wall_s=1, cpu_s=1, memory=1, tmp=1, output=1, result=1, processes=1
)  # fmt: skip
HEADER = msgspec.msgpack.encode(JOB)


class Worker:
    """One job after the other."""

    def __init__(self):
        self.cache, self.text = CodeCache(), None

    def ended(self, outcome, byte_code):
        if self.text is not None:
            self.cache.learn(self.text, outcome, byte_code)


def given(code, kept, **fields):
    """What the child of a job with this code is told: whether to screen it, whether to send byte code; and byte code."""
    job = msgspec.structs.replace(JOB, **fields)
    frames, kept.text = kept.cache.look_up(job, [msgspec.msgpack.encode(job), code, b"stdin", b"argument"])
    header, *payload = frames
    assert (payload[0], payload[2:]) == (code, [b"stdin", b"argument"])
    seen, sends = msgspec.msgpack.decode(header, type=wire.Run), kept.text is not None and kept.text.sends
    assert seen == msgspec.structs.replace(job, screened=seen.screened, apart=sends)
    return seen.screened, sends, payload[1]


def is_read(code, kept, **fields):
    return given(code, kept, **fields)[0]


@pytest.mark.parametrize("outcome", Outcome)
def test_only_code_that_has_ended_ok_is_not_read_again(outcome):
    kept = Worker()
    assert is_read(b"a", kept)
    kept.ended(outcome, None)
    assert is_read(b"a", kept) == (outcome is not Outcome.OK)
    assert is_read(b"b", kept)


@pytest.mark.parametrize("fields", [{"screened": False}, {"pickled": True}, {"pickled": True, "apart": True}])
def test_what_was_not_read_counts_for_nothing_and_has_no_byte_code(fields):
    kept = Worker()
    given(b"a", kept, **fields)
    kept.ended(Outcome.OK, b"byte code")
    assert given(b"a", kept) == (True, False, b"")
    kept.ended(Outcome.OK, None)
    given(b"a", kept)
    kept.ended(Outcome.OK, b"byte code")
    assert given(b"a", kept, **fields)[1:] == (False, b"")


def test_the_second_job_of_a_text_sends_byte_code_and_the_later_ones_load_it():
    kept = Worker()
    assert given(b"a", kept) == (True, False, b"")
    kept.ended(Outcome.OK, None)
    assert given(b"a", kept) == (False, True, b"")
    kept.ended(Outcome.OK, b"byte code")
    assert given(b"a", kept) == (False, False, b"byte code")
    assert given(b"b", kept) == (True, False, b"")


@pytest.mark.parametrize("outcome", Outcome)
def test_the_second_case_loads_what_the_first_one_has_sent_however_that_has_ended(outcome):
    kept = Worker()
    assert given(b"a", kept, apart=True) == (True, True, b"")
    kept.ended(outcome, b"byte code")
    assert given(b"a", kept, apart=True) == (False, False, b"byte code")


def test_a_text_without_byte_code_is_screened_until_it_has_ended_ok_and_not_asked_for_it_again():
    kept = Worker()
    given(b"a", kept, apart=True)
    kept.ended(Outcome.ERROR, b"")
    assert given(b"a", kept, apart=True) == (True, False, b"")
    kept.ended(Outcome.OK, None)
    assert given(b"a", kept, apart=True) == (False, False, b"")


def test_the_texts_that_were_used_last_are_kept(monkeypatch):
    monkeypatch.setattr(code_cache, "_MOST_TEXTS", 2)
    kept = Worker()
    for code in (b"a", b"b", b"a", b"c"):
        is_read(code, kept)
        kept.ended(Outcome.OK, None)
    assert [is_read(code, kept) for code in (b"a", b"b", b"c")] == [False, True, False]


def test_the_byte_code_that_is_kept_has_a_bound(monkeypatch):
    monkeypatch.setattr(code_cache, "_MOST_BYTES", 20)
    kept = Worker()
    for code, size in ((b"a", 9), (b"b", 9), (b"a", 9), (b"c", 9), (b"d", 21)):
        given(code, kept, apart=True)
        kept.ended(Outcome.OK, bytes(size))
        if code == b"c":
            assert [given(each, kept)[2] for each in (b"a", b"b", b"c")] == [bytes(9), b"", bytes(9)]
    assert [given(each, kept)[2] for each in (b"a", b"c", b"d")] == [b"", b"", b""]
