"""What the daemon sends to a worker around the writes of its journal: the next job, and the receipt of an answer."""

from types import SimpleNamespace

import pytest

from pool import wire
from pool.config import Template
from pool.core import events as ev
from pool.daemon.job import Grader, Job
from pool.daemon.job_carrier import JobCarrier
from pool.daemon.job_store import JobStore
from pool.daemon.journal import NoJournal
from pool.daemon.metrics import Metrics
from pool.model import Outcome, StartKind

LIMITS = {
    "wall_s": 60.0, "cpu_s": 60.0, "memory": 1 << 30, "tmp": 1 << 20, "output": 1 << 20, "result": 1 << 20, "processes": 8,
}  # fmt: skip
RUN = wire.Run(job_id="j", epoch=0, **LIMITS)
DONE = wire.Done(job_id="j", epoch=5, outcome=Outcome.OK)


class HeldJournal(NoJournal):
    """Writes when the test says so, in order."""

    durable = True

    def __init__(self):
        self.held = []

    def write(self, _operation, then):
        self.held.append(then)

    def flush(self):
        while self.held:
            self.held.pop(0)(None)


@pytest.fixture
def place():
    journal, sent, events = HeldJournal(), [], []
    jobs = JobStore(journal, SimpleNamespace(), ttl_s=60, max_bytes=1 << 30)
    links = SimpleNamespace(send=lambda worker, message, *_, **__: sent.append((worker, message)) or True)
    services = SimpleNamespace(jobs=jobs, journal=journal, transport=SimpleNamespace(links=links))
    handle = SimpleNamespace(id="w-1", container=None, kept=None, protocol=SimpleNamespace(lease=lambda *_: None))
    pool = SimpleNamespace(
        state=SimpleNamespace(workers={}, jobs={}), handles={"w-1": handle}, apply=events.append, lost=sent.append
    )
    template = Template(size={"min": 1, "max": 1})
    carrier = JobCarrier(pool, services, Metrics(), bind=lambda *_: None, template=template)
    return SimpleNamespace(carrier=carrier, pool=pool, jobs=jobs, journal=journal, sent=sent, events=events)


def accepted(place, **more):
    job = Job(key="1/j", client="1", pool="default", received_ns=1, run=RUN, payload=(), held_bytes=1, **more)
    place.jobs.accept(job, None, lambda _: None)
    place.journal.flush()
    return job


def answer(place, size):
    """The job's worker has answered with so many bytes."""
    attachment = DONE, (b"", b"", b"", bytes(size))
    finish = ev.Finish(job_id="1/j", outcome=Outcome.OK, reason="", worker_id="w-1", attempt=1, attachment=attachment)
    place.carrier.finish(finish)


def test_a_small_answer_is_acknowledged_by_the_next_job_alone(place):
    accepted(place)
    answer(place, 60_000)
    place.journal.flush()
    assert place.jobs.by_key["1/j"].result is not None
    assert place.sent == []


def test_a_large_answer_is_acknowledged_as_soon_as_it_is_written(place):
    accepted(place)
    answer(place, 70_000)
    assert place.sent == []
    place.journal.flush()
    assert place.sent == [("w-1", wire.Collected(job_id="j", epoch=5))]


def test_an_answer_that_is_graded_is_acknowledged_because_the_next_daemon_would_not_grade_it_again(place):
    accepted(place, grader=Grader(run=RUN, code="c", frames=1), grader_payload=(b"grade",))
    answer(place, 10)
    assert [type(event) for event in place.events] == [ev.JobSubmitted]
    assert place.sent == [("w-1", wire.Collected(job_id="j", epoch=5))]


def test_a_grade_is_sent_to_a_worker_after_the_end_of_the_job_before_is_written(place):
    whole = accepted(place)
    part = Job(
        key="1/j/grade", client="1", pool="default", received_ns=1, run=RUN, payload=(), held_bytes=1, whole=whole
    )
    record = SimpleNamespace(id=part.key, cancelled_at=None, pending_end=None)
    place.pool.state.workers["w-1"] = SimpleNamespace(job=record, epoch=6)
    written = []
    place.journal.write(None, lambda _: written.append("the end of the job before"))
    dispatch = ev.Dispatch(worker_id="w-1", job_id=part.key, epoch=6, attempt=1, start=StartKind.PARKED, at=1.0)
    place.carrier.accept(ev.Accept(job_id=part.key, attachment=part, dispatch=dispatch))
    assert place.sent == []
    place.journal.flush()
    assert written
    assert [(worker, message.epoch) for worker, message in place.sent] == [("w-1", 6)]
