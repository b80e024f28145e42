"""Findings of the screen on their way from a child to a client, and bytes that a job may have written instead."""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runner.answer import Setting, answer

from pool import wire
from pool.client.results import to_result
from pool.errors import RemoteProtocolError
from pool.model import Finding, Outcome
from pool.screen import Policy

HOSTILE = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
TEXT = st.text(max_size=200)
COMPLAINTS = st.lists(
    st.builds(
        wire.Finding,
        rule=st.text(max_size=32),
        line=st.integers(1, 1 << 31),
        column=st.integers(1, 1 << 31),
        reason=TEXT,
        remedy=TEXT,
    ),
    max_size=100,
).map(tuple)
RUN = wire.Run(
    job_id="j", epoch=0, wall_s=5, cpu_s=5, memory=1 << 30, tmp=1 << 20, output=65536, result=65536, processes=8,
    entry="main",
)  # fmt: skip


def result_of(fault, *, outcome=Outcome.REJECTED):
    header = wire.Result(
        job_id="j", outcome=outcome, reason="S101", stdout_bytes=0, stderr_bytes=0, queue_ms=0, dispatch_ms=0, run_ms=0,
        collect_ms=0, total_ms=0, cpu_s=0, max_rss_bytes=0,
    )  # fmt: skip
    return to_result((header, [b"", b"", fault]))


@HOSTILE
@given(complaints=COMPLAINTS)
def test_findings_come_out_as_they_went_in(complaints):
    result = result_of(wire.encode_fault(wire.Fault(type="Rejected", message="m", findings=complaints)))
    assert [msgspec.structs.asdict(each) for each in complaints] == [
        {name: getattr(each, name) for name in ("rule", "line", "column", "reason", "remedy")}
        for each in result.findings
    ]
    assert all(isinstance(each, Finding) for each in result.findings)
    assert (result.outcome, result.error.type) == (Outcome.REJECTED, "Rejected")


@HOSTILE
@given(frame=st.binary(max_size=400))
def test_bytes_that_are_no_error_at_all_are_said_to_be_so_and_raise_nothing(frame):
    result = result_of(frame)
    assert result.outcome is Outcome.REJECTED
    assert result.error is None if not frame else result.error is not None


GOOD = {"rule": "S1", "line": 1, "column": 1, "reason": "r", "remedy": "m"}
BAD = {
    "a line before the first": GOOD | {"line": 0},
    "a line too far": GOOD | {"line": (1 << 31) + 1},
    "a column that is text": GOOD | {"column": "1"},
    "a rule too long": GOOD | {"rule": "S" * 33},
    "a reason too long": GOOD | {"reason": "r" * 1025},
    "a field that is missing": {"rule": "S1"},
    "no map": ["S1", 1, 1, "r", "m"],
}


@pytest.mark.parametrize("finding", BAD.values(), ids=[name.replace(" ", "-") for name in BAD])
def test_a_finding_that_is_none_makes_the_error_invalid_and_no_finding(finding):
    frame = msgspec.msgpack.encode({"type": "Rejected", "message": "m", "findings": [finding]})
    with pytest.raises(RemoteProtocolError):
        wire.decode_fault(frame)
    result = result_of(frame)
    assert (result.findings, result.error.type) == ((), "InvalidError")


def test_more_findings_than_a_loop_should_read_are_refused():
    frame = msgspec.msgpack.encode({"type": "Rejected", "message": "m", "findings": [GOOD] * 101})
    assert result_of(frame).findings == ()


# ---- the child's side ----


def run(code, *, mode="standard", **changes):
    frames = answer(msgspec.structs.replace(RUN, **changes), code, [], Setting({}, Policy(mode=mode), "/nowhere"))
    return wire.decode_fault(bytes(frames[1])) if bytes(frames[1]) else None


def test_code_that_the_screen_refuses_does_not_run_and_its_findings_fit_the_wire():
    fault = run(b"import os\nimport socket\ndef main():\n    raise AssertionError('it ran')\n")
    assert fault.type == "Rejected"
    assert [(each.line, each.rule[:1]) for each in fault.findings] == [(1, "S"), (2, "S")]
    result = result_of(wire.encode_fault(fault))
    assert [str(each) for each in result.findings] == [
        f"{each.line}:{each.column} {each.rule} {each.reason}; {each.remedy}" for each in fault.findings
    ]


def test_the_findings_of_a_program_that_breaks_a_rule_everywhere_fit_a_message():
    lines = "\n".join(f"import os as name_{number}, socket" for number in range(3000))
    fault = run(f"{lines}\ndef main(): pass\n".encode())
    assert 0 < len(fault.findings) <= 100
    long = "x" * 60_000
    assert run(f"import {long}\ndef main(): pass\n".encode()).findings


def test_a_question_of_the_daemons_own_is_not_screened():
    assert run(b"import os\ndef main():\n    return os.getpid() > 0\n", screened=False) is None


def test_a_pickled_callable_is_refused_in_the_strict_mode_with_its_rule():
    fault = run(b"not even a pickle", mode="strict", pickled=True)
    assert [each.rule for each in fault.findings] == ["S506"]
