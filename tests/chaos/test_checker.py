"""The checker of a campaign finds each kind of violation, and none in a correct history."""

from collections import Counter

import pytest

from tests.chaos.checker import check
from tests.chaos.programs import nonce_of


def job(job_id="j", *, kind="short", acknowledged=True, ends=("ok",), value=None):
    value = nonce_of(job_id) if value is None else value
    yield {"what": "submit", "id": job_id, "kind": kind}
    if acknowledged:
        yield {"what": "acknowledged", "id": job_id}
    for outcome in ends:
        yield {"what": "end", "id": job_id, "outcome": outcome, "value": value if outcome == "ok" else None}


def violations(*records, seen=("j",), complete=True):
    counts = Counter(nonce_of(job_id) for job_id in seen)
    return check([each for some in records for each in some], counts, complete=complete).violations


@pytest.mark.parametrize("outcome", ["ok", "lost", "timeout"])
def test_a_job_that_ended_as_it_may_under_a_fault_is_no_violation(outcome):
    assert violations(job(ends=[outcome, outcome])) == []


def test_a_job_that_was_refused_and_did_not_run_is_no_violation():
    refused = [{"what": "submit", "id": "j", "kind": "short"}, {"what": "refused", "id": "j", "why": "draining"}]
    assert violations(refused, seen=()) == []
    assert violations(job(acknowledged=False, ends=["unknown"]), seen=()) == []


@pytest.mark.parametrize(
    ("records", "seen", "words"),
    [
        (job(ends=[]), (), "acknowledged and has no end"),
        (job(ends=["unknown"]), (), "acknowledged and is unknown"),
        (job(ends=["unanswered"]), (), "acknowledged and is unanswered"),
        (job(acknowledged=False, ends=["unanswered"]), (), "sent and is unanswered"),
        (job(), ("j", "j"), "executed 2 times"),
        (job(), (), "ended ok and was never executed"),
        (job(ends=["ok", "lost"]), ("j",), "ended ok and then lost"),
        (job(value=nonce_of("another")), ("j",), "not its own"),
        (job(ends=["crash"]), ("j",), "ended crash"),
        (job(ends=["cancelled"]), ("j",), "ended cancelled"),
        (job(acknowledged=False, ends=["unknown"]), ("j",), "never accepted and executed"),
        (job(acknowledged=False, ends=[]), ("j",), "refused and executed"),
        (job(), ("j", "nobody's"), "that nobody submitted"),
        ([*job(), {"what": "left", "thing": "container x"}], ("j",), "left behind: container x"),
        ([*job(), {"what": "failed", "id": "j", "why": "ProtocolError: no"}], ("j",), "ProtocolError: no"),
    ],
)
def test_each_kind_of_broken_promise_is_found(records, seen, words):
    found = violations(records, seen=seen)
    assert len(found) == 1
    assert words in found[0]


def test_a_witness_that_missed_something_is_a_violation_and_jobs_that_it_has_not_seen_are_none():
    found = violations(job(), seen=(), complete=False)
    assert len(found) == 1
    assert "witness" in found[0]
