"""Results from answers whose fields and frames were all chosen by a job."""

import itertools
import pickle

import msgspec
import pytest

from pool import wire
from pool.client.pending import Delivery
from pool.client.results import to_result
from pool.model import JobResult, Outcome
from pool.wire.client import Result, to_client
from pool.wire.codec import MALFORMED

FIELDS = msgspec.to_builtins(Result(job_id="j", outcome=Outcome.OK))
NUMBERS = [name for name in FIELDS if name.endswith(("_ms", "_s", "_bytes")) or name == "attempt"]
HOSTILE = [
    float("nan"), float("inf"), -1, -0.0, 1e9, 1 << 62, -(1 << 63), (1 << 64) - 1, "", "x" * 4096, "\x1b[2J\u202e\0", None, True,
    {}, b"\xff", [["a"]], ["a", "a"], ["../x"], ["\x1b[2J"],
]  # fmt: skip
CLAIM = {"type": "\x1b[2J", "message": "m" * 65536, "traceback": "t" * 262_144, "limit": "x" * 32}
PAYLOADS = {
    "no frames": [],
    "no UTF-8": [b"\xff\xfe\x1b[2J", b"\xed\xa0\x80", b""],
    "no error and no value": [b"", b"", b"\xc1", b"\xc1", b"\xc1"],
    "the longest error": [b"", b"", msgspec.msgpack.encode(CLAIM)],
}


def received(field, value):
    return to_client.decode(msgspec.msgpack.encode({**FIELDS, field: value}))


@pytest.mark.parametrize("field", NUMBERS)
def test_a_time_or_a_count_that_is_no_finite_number_from_zero_is_refused(field):
    for value in (float("nan"), float("inf"), float("-inf"), -1, -1e-9, 1 << 63, -(1 << 63), "1", None, True, [1]):
        with pytest.raises(MALFORMED):
            received(field, value)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_any_answer_that_the_protocol_takes_is_a_result_that_can_be_printed_and_pickled(payload):
    taken = 0
    for field, value in itertools.product(FIELDS, HOSTILE):
        try:
            header = received(field, value)
        except MALFORMED:
            continue
        result = to_result(Delivery(header, PAYLOADS[payload]))
        assert isinstance(result, JobResult)
        assert pickle.loads(pickle.dumps(result)) == result
        assert "\x1b" not in repr(result)
        assert all(map(wire.is_relative_name, result.files))
        taken += 1
    assert taken > len(FIELDS)
