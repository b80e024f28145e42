"""Real programs in the pool: each does what it does in a plain process of the same interpreter, and does it again."""

from collections import Counter

import pytest

from pool.model import Outcome
from tests.corpus import humaneval
from tests.corpus.memory import MOST_GROWTH_BYTES

pytestmark = [pytest.mark.corpus, pytest.mark.docker, pytest.mark.timeout(3600)]


def _of(findings, part):
    return [
        (case, seen, *(each.answers[at].seen for each in findings.rounds))
        for at, (case, seen) in enumerate(zip(findings.cases, findings.witnesses, strict=True))
        if case.part == part
    ]


def test_every_job_has_exactly_one_result_and_it_is_one_of_the_outcomes(findings):
    for number, each in zip(("one", "two"), findings.rounds, strict=True):
        assert each.given == Counter(f"{number}.{case.name}" for case in findings.cases)
        assert {answer.seen.outcome for answer in each.answers} <= set(Outcome)


def test_no_job_is_lost_refused_or_crashed(findings):
    for each in findings.rounds:
        ended = {answer.seen.outcome for answer in each.answers}
        assert ended <= {"ok", "error", "timeout", "memory", "output"}, Counter(a.seen.outcome for a in each.answers)


def test_every_program_does_what_it_does_in_a_plain_process_and_a_second_run_is_identical(findings):
    unexplained = findings.unexplained()
    assert not unexplained, "\n".join(
        f"{each.case.name}: {each.between} differ in {', '.join(each.fields)}: {each.about}" for each in unexplained
    )


def test_each_canonical_solution_passes(findings):
    for case, witness, *answers in _of(findings, humaneval.PASS):
        assert {"ok"} == {witness.seen.outcome, *(seen.outcome for seen in answers)}, case.name
        assert all(seen.value == '"passed"' for seen in answers), case.name


def test_each_broken_solution_fails_in_the_same_way_as_in_a_plain_process(findings):
    for case, witness, *answers in _of(findings, humaneval.FAIL):
        assert witness.seen.outcome == "error", case.name
        assert {(witness.seen.type, witness.seen.message)} == {(seen.type, seen.message) for seen in answers}, case.name


def test_the_memory_of_the_daemon_is_flat(findings):
    growth = findings.memory.growth
    if growth is None:
        pytest.skip("too few jobs to say; the share is small")
    assert growth < MOST_GROWTH_BYTES, f"{growth / 1024**2:.1f} MiB"
