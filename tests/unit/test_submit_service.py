"""Submissions that are digested in a thread: the order of one client's requests, and ids that run once."""

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from pool import values, wire
from pool.config import Template
from pool.core import events as ev
from pool.daemon import admission
from pool.daemon.job_store import HOLD_S, JobStore
from pool.daemon.journal import NoJournal
from pool.daemon.submit_service import MAX_INLINE_BYTES, SubmitService
from pool.daemon.worker_handle import Services
from pool.errors import DrainingError, JobConflictError
from pool.model import Outcome
from tests.support.daemons import module_daemon, pool_of

SMALL, LARGE = b"x", bytes(MAX_INLINE_BYTES + 1)
ANN, BOB = "1000", "1001"


class FakeListener:
    """The part of a ClientListener that the service uses. `send` of a user that is paused waits, as in a socket."""

    def __init__(self):
        self.sent = []
        self.paused = {}
        self.service = None

    def client_sends(self, user, message, *payload, address=None):
        frames = wire.encode(message, payload)
        if user in self.paused:
            self.paused[user].append((address or user.encode(), frames))
        else:
            self.service.receive(address or user.encode(), user, frames)

    def pause(self, user):
        assert user not in self.paused
        self.paused[user] = []

    def resume(self, user):
        self.waiting = [(user, *each) for each in self.paused.pop(user)]

    def deliver(self):
        """What the loop does after a user was resumed."""
        while self.waiting:
            user, address, frames = self.waiting.pop(0)
            if user in self.paused:
                self.paused[user].append((address, frames))
            else:
                self.service.receive(address, user, frames)

    def send(self, address, message, payload=(), *, first=None):
        self.sent += [(address, each) for each in (first, message) if each is not None]


class FakePool:
    """Accepts every job, or refuses it as a pool that stops."""

    def __init__(self, jobs):
        self.jobs = jobs
        self.template = Template(size={"min": 1, "max": 1})
        self.events = []
        self.refusal = None

    def apply(self, event):
        self.events.append(event)
        if isinstance(event, ev.JobSubmitted) and self.refusal is None:
            self.jobs.accept(event.attachment, None, lambda _: None)
        return self.refusal


class Held:
    """Threads whose work is done when the test says so."""

    def __init__(self):
        self.work = []

    def submit(self, work, on_done):
        self.work.append((work, on_done))

    def finish(self):
        work, on_done = self.work.pop(0)
        future = Future()
        future.set_result(work())
        on_done(future)


@pytest.fixture
def place():
    listener, held, journal = FakeListener(), Held(), NoJournal()
    jobs = JobStore(journal, listener, ttl_s=60, max_bytes=1 << 20)
    pool = FakePool(jobs)
    services = Services(
        transport=SimpleNamespace(submit=listener), executors={}, jobs=jobs, journal=journal, outputs=None, kept=None
    )
    listener.service = SubmitService({"default": pool}, services, executor=held, instance="instance")
    return SimpleNamespace(listener=listener, pool=pool, held=held, jobs=jobs, service=listener.service)


def submit(job_id, request=1, **fields):
    return wire.Submit(request=request, job_id=job_id, **fields)


def kinds(place, user=ANN):
    """The answers to one client, in order: the kind, and the request where there is one."""
    return [(type(each).__name__, each.request) for address, each in place.listener.sent if address == user.encode()]


def test_a_small_submission_is_queued_at_once(place):
    place.listener.client_sends(ANN, submit("a"), SMALL, b"")
    assert not place.held.work
    assert [event.job_id for event in place.pool.events] == ["1000/a"]


def test_a_result_is_sent_before_its_worker_is_told_and_accepted_after_all_that_the_write_leads_to(place, monkeypatch):
    written = []
    journal = SimpleNamespace(durable=True, write=lambda _, then: written.append(then))
    monkeypatch.setattr(place.jobs, "_journal", journal)
    monkeypatch.setattr(place.jobs, "end", place.jobs._write_end)
    place.listener.client_sends(ANN, submit("a", watch=True), SMALL, b"")
    written.pop()(None)
    assert kinds(place) == [], "its worker is sent the job first"
    place.jobs.answer()
    assert kinds(place) == [("Accepted", 1)]
    job, order = place.jobs.by_key["1000/a"], place.listener.sent
    result = wire.Result(job_id="a", outcome=Outcome.OK)
    place.jobs.end(job, result, (b"", b"", b""), lambda: order.append((b"worker", "Collected")))
    written.pop()(None)
    assert [message for _, message in order[1:]] == [result, "Collected"]


def ends_uncollected(place, user, job_id, result_bytes):
    place.listener.client_sends(user, submit(job_id), SMALL, b"")
    job = place.jobs.by_key[f"{user}/{job_id}"]
    place.jobs.end(job, wire.Result(job_id=job_id, outcome=Outcome.OK), (bytes(result_bytes),))


def test_results_that_one_user_does_not_collect_keep_only_that_user_out(place):
    ends_uncollected(place, ANN, "a", 3 << 20)
    place.listener.client_sends(ANN, submit("b", request=2), SMALL, b"")
    assert kinds(place)[-1] == ("Refused", 2)
    error = place.listener.sent[-1][1]
    assert error.code == "storage_full"
    assert "3.0 MiB, of which yours take 3.0 MiB, and all together may take 1.0 MiB; collect" in error.message
    ends_uncollected(place, BOB, "c", 1 << 18)
    ends_uncollected(place, BOB, "d", 1 << 19)  # with this his are more than half of all that may be kept
    place.listener.client_sends(BOB, submit("e", request=3), SMALL, b"")
    assert kinds(place, BOB)[-1] == ("Refused", 3)


def test_a_request_for_a_result_that_is_there_is_accepted_and_the_result_follows(place):
    place.listener.client_sends(ANN, submit("a"), SMALL, b"")
    result = wire.Result(job_id="a", outcome=Outcome.OK)
    place.jobs.end(place.jobs.by_key["1000/a"], result, (b"", b"", b""))
    place.listener.client_sends(ANN, wire.Watch(request=2, job_id="a"), address=b"watch")
    place.listener.client_sends(ANN, submit("a", 3, watch=True), SMALL, b"", address=b"again")
    place.listener.client_sends(ANN, wire.Cancel(request=4, job_id="a"), address=b"cancel")
    sent = {
        name: [message for address, message in place.listener.sent if address == name] for name in (b"watch", b"again")
    }
    assert sent[b"watch"] == [wire.Accepted(request=2, job_id="a"), result]
    assert sent[b"again"] == [wire.Accepted(request=3, job_id="a"), result]
    assert kinds(place, "cancel") == [("Accepted", 4)]


@pytest.fixture
def running(place):
    """A job that was given to a worker when it was accepted."""
    accept = place.jobs.accept

    def lease(job, *rest):
        job.leased_ns = 1
        accept(job, *rest)

    place.jobs.accept = lease
    place.listener.client_sends(ANN, submit("a", 1, watch=True), SMALL, b"")
    return place.jobs.by_key["1000/a"]


ENDED = wire.Result(job_id="a", outcome=Outcome.OK)


def test_a_job_that_ends_soon_is_accepted_in_the_write_of_its_result(place, running, monkeypatch):
    writes = []
    monkeypatch.setattr(place.listener, "send", lambda _, *message, first=None: writes.append((first, message[0])))
    place.jobs.end(running, ENDED, (b"", b"", b""))
    assert writes == [(wire.Accepted(request=1, job_id="a"), ENDED)]
    assert place.jobs.release_at == math.inf
    place.jobs.release(time.monotonic() + HOLD_S)
    assert len(writes) == 1


def test_a_job_that_goes_on_is_accepted_once_without_its_result(place, running):
    due = place.jobs.release_at
    assert due < time.monotonic() + HOLD_S
    place.jobs.release(due - 1)
    assert kinds(place) == []
    place.jobs.release(due)
    assert (kinds(place), place.jobs.release_at) == ([("Accepted", 1)], math.inf)
    place.jobs.end(running, ENDED, (b"", b"", b""))
    assert [message for _, message in place.listener.sent[1:]] == [ENDED]


def test_each_request_of_one_client_for_a_running_job_is_accepted(place, running):
    place.listener.client_sends(ANN, wire.Watch(request=2, job_id="a"))
    place.jobs.end(running, ENDED, (b"", b"", b""))
    messages = [message for _, message in place.listener.sent]
    assert {each.request for each in messages[:-1]} == {1, 2}
    assert messages[-1] == ENDED


def test_a_chunk_may_take_the_wall_limit_of_all_its_calls(place):
    job = submit("chunk", entry="main", calls=(0, 1, 0), limits=wire.JobLimits(wall_s=7))
    place.listener.client_sends(ANN, job, b"code", b"", b"argument")
    assert [event.wall_s for event in place.pool.events] == [21]


@pytest.mark.parametrize(
    ("fields", "payload"),
    [
        ({"entry": "main", "calls": (1, 1)}, [b"code", b"", b"argument"]),
        ({"entry": "main", "calls": (1,)}, [b"code", b"stdin", b"argument"]),
        ({"calls": (0, 0)}, [b"code", b""]),
        ({"entry": "main", "calls": (0, 0), "grade": wire.Grader(entry="grade")}, [b"code", b"", b"grader"]),
    ],
)
def test_a_chunk_that_cannot_be_one_is_refused(place, fields, payload):
    place.listener.client_sends(ANN, submit("chunk", **fields), *payload)
    assert [(type(message), message.code) for _, message in place.listener.sent] == [(wire.Refused, "invalid_job")]


def test_a_large_submission_keeps_the_order_of_its_clients_requests_and_delays_no_other_client(place):
    send = place.listener.client_sends
    send(ANN, submit("large", 1), SMALL, b"", LARGE)
    send(ANN, submit("small", 2), SMALL, b"")
    send(ANN, wire.Cancel(request=3, job_id="large"))
    send(ANN, wire.Ping(request=4))
    send(BOB, submit("other", 1), SMALL, b"")
    assert kinds(place) == []
    assert kinds(place, BOB) == [("Accepted", 1)]
    place.held.finish()
    place.listener.deliver()
    assert kinds(place) == [("Accepted", 1), ("Accepted", 2), ("Accepted", 3), ("Pong", 4)]
    names = [(type(event).__name__, event.job_id) for event in place.pool.events]
    assert names == [
        ("JobSubmitted", "1001/other"),
        ("JobSubmitted", "1000/large"),
        ("JobSubmitted", "1000/small"),
        ("CancelRequested", "1000/large"),
    ]


@pytest.mark.parametrize("second", [SMALL, LARGE], ids=["small", "large"])
def test_the_same_id_twice_is_one_job_if_the_content_is_the_same_else_it_is_refused(place, second):
    send = place.listener.client_sends
    send(ANN, submit("a", 1), SMALL, b"", LARGE)
    send(ANN, submit("a", 2), SMALL, b"", LARGE, address=b"second connection")
    send(ANN, submit("a", 3), SMALL, b"other", second)
    while place.held.work:
        place.held.finish()
        place.listener.deliver()
    assert [event.job_id for event in place.pool.events] == ["1000/a"]
    assert ("Accepted", 2) in kinds(place, "second connection")
    refused = [message for _, message in place.listener.sent if isinstance(message, wire.Refused)]
    assert [(each.request, each.code) for each in refused] == [(3, JobConflictError.code)]


def test_a_client_that_is_gone_when_its_submission_is_digested_finds_its_job_later(place):
    place.listener.client_sends(ANN, submit("a", 1, watch=True), SMALL, b"", LARGE)
    place.held.finish()
    place.listener.client_sends(ANN, wire.Watch(request=2, job_id="a"), address=b"next connection")
    assert kinds(place, "next connection") == [("Accepted", 2)]
    assert place.jobs.by_key.get("1000/a").watchers == {b"1000", b"next connection"}


def test_a_submission_that_is_refused_after_its_digest_is_answered_and_forgotten(place):
    place.listener.client_sends(ANN, submit("a", 1), SMALL, b"", LARGE)
    assert place.service.digesting == 1, "the daemon does not stop before the client has its answer"
    place.pool.refusal = DrainingError("The pool is shutting down.")
    place.held.finish()
    assert kinds(place) == [("Refused", 1)]
    assert place.jobs.by_key.get("1000/a") is None
    assert place.service.digesting == 0


def test_a_digest_covers_every_frame_and_field_but_not_how_the_job_was_asked_for():
    def whole(*payload, **fields):
        return admission.digest(submit("a", **fields), payload).whole

    base = whole(b"code", b"in", b"x")
    assert base == whole(b"code", b"in", b"x", request=7, watch=True, stream=True)
    others = [
        whole(b"code", b"in", b"y"),
        whole(b"code", b"in"),
        whole(b"code", b"in", b"x", b""),
        whole(b"code", b"inx", b""),
        whole(b"codei", b"n", b"x"),
        whole(b"code", b"in", b"x", entry="main"),
        whole(b"code", b"in", b"x", seed=1),
        whole(b"code", b"in", b"x", pickled=True),
    ]
    assert len({base, *others}) == 1 + len(others)


# ---- with a real daemon ----

POOL = pool_of(1, limits={"wall_s": 30, "cpu_s": 30, "memory": "512m", "output": "64k", "result": "1m"})
CODE = "import time\ndef main(x):\n    time.sleep(0.2)\n    return time.monotonic_ns()"


daemon = module_daemon({"default": POOL})


def test_a_large_job_that_is_submitted_twice_at_once_runs_once(daemon):
    def run(job_id):
        with daemon.client(timeout=60) as client:
            return client.run(CODE, entry="main", args=[bytes(30 << 20)], job_id=job_id).value

    with ThreadPoolExecutor(4) as threads:
        for name in ("first", "second"):
            assert len({*threads.map(run, [name] * 4)}) == 1


def test_a_large_job_that_is_cancelled_right_after_it_was_submitted_is_cancelled(daemon):
    with daemon.client(timeout=60) as client, daemon.client(timeout=60) as other:
        job_id = client.submit(CODE.replace("0.2", "60"), entry="main", args=[bytes(60 << 20)])
        other.cancel(job_id)
        assert client.result(job_id, timeout=60).outcome is Outcome.CANCELLED


def test_frames_of_values_are_digested_as_they_are():
    frames = values.encode(((bytes(3 << 20),), {}), max_bytes=1 << 24)
    digests = {
        admission.digest(submit("a"), [b"c", b"", *map(kind, frames)]) for kind in (bytes, bytearray, memoryview)
    }
    assert len(digests) == 1
