"""Class E of the catalogue, what a taken-over runner says of its job's output: each lie costs the worker and its job."""

from __future__ import annotations

import pytest

from pool.model import Outcome
from tests.hostile.siege import SMALL, Besieged

ROGUE = SMALL | {"size": {"min": 1, "max": 1}, "heartbeat_s": 2, "poison": {"kills": 0}}
CAP = 64 * 1024


@pytest.fixture(scope="module")
def daemon():
    with Besieged({"default": SMALL, "rogue": ROGUE}, engine="rogue") as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(daemon):
    with daemon.unharmed():
        yield


@pytest.mark.parametrize(
    ("script", "words", "heard_bytes"),
    [
        ("job_prints_of_another_job", "of job somebody-elses", 0),
        ("job_prints_of_another_lease", "it sent Printed of job", 0),
        ("job_prints_without_end", "limit of 65536 bytes", CAP),
        ("job_prints_at_another_place", "from byte 1 of stdout; the next byte is 3", 3),
        ("job_prints_nothing", "one frame of 1 to", 0),
        ("job_prints_too_much_at_once", "one frame of 1 to", 0),
        ("job_prints_crumbs", "times in", None),
        ("job_prints_what_it_then_denies", "differs from the output", 3),
    ],
)
def test_output_that_cannot_be_destroys_the_worker_and_what_was_heard_stays(daemon, script, words, heard_bytes):
    worker, heard = daemon.leasable(script), []
    result = daemon.run(pool="rogue", on_stdout=heard.append)
    assert (result.outcome, result.worker) == (Outcome.LOST, worker), result
    assert words in result.reason
    text = "".join(heard)
    assert text == result.stdout
    assert len(text) <= CAP
    assert heard_bytes in {None, len(text)}
    assert words in daemon.replaced(worker)


def test_output_that_nobody_asked_for_destroys_the_worker(daemon):
    worker = daemon.leasable("job_prints_unasked")
    result = daemon.run(pool="rogue")
    assert (result.outcome, result.stdout) == (Outcome.LOST, "")
    assert "nobody had asked for" in daemon.replaced(worker)


def test_output_after_the_answer_changes_nothing_and_destroys_the_worker(daemon):
    worker, heard = daemon.leasable("job_prints_after_its_end"), []
    result = daemon.run(pool="rogue", on_stdout=heard.append)
    assert (result.outcome, heard) == (Outcome.OK, [])
    assert "it sent Printed while it cleaned up" in daemon.replaced(worker)
