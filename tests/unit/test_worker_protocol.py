"""What a worker may send in each phase, and what follows."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool import values, wire
from pool.daemon.controller import PoolController
from pool.daemon.self_tests import NOOP_ID, PROBE_ID, StartCheck, StartFailed
from pool.daemon.worker_protocol import MAX_TEXT, TABLE, Effect, Phase, WorkerProtocol, check_answer, printable
from pool.errors import RemoteProtocolError
from pool.model import Outcome

LIMITS = {
    "wall_s": 10.0, "cpu_s": 5.0, "memory": 64 << 20, "tmp": 1 << 20, "output": 65536, "result": 65536, "processes": 8,
}  # fmt: skip
HELLO = wire.Hello(runner="1", sources="digest", python="3.11")
READY = wire.Ready(boot_ms=1, preload_ms=1, isolation="plain")
HEARTBEAT = wire.Heartbeat()
BROKEN = wire.Broken(reason="it is broken")
EMPTY = (b"", b"", b"")


def started(job="j", epoch=1):
    return wire.Started(job_id=job, epoch=epoch)


def done(job="j", epoch=1, **more):
    return wire.Done(job_id=job, epoch=epoch, **{"outcome": Outcome.OK} | more)


def printed(job="j", epoch=1):
    return wire.Printed(job_id=job, epoch=epoch, name="stdout", offset=0)


def freed(epoch=1):
    return wire.Freed(epoch=epoch)


def answer(value):
    return [*EMPTY, *values.encode(value, max_bytes=1 << 16)]


#: The messages of a start, each with its payload, and the phase and the effect after it.
START = [
    ((HELLO, ()), Phase.STARTING, Effect.CONNECTED),
    ((READY, ()), Phase.TEST_SENT, Effect.SEND_TEST),
    ((started(PROBE_ID, 0), ()), Phase.TEST_RUNNING, Effect.NOTHING),
    ((done(PROBE_ID, 0), answer([[41, 42], [["mount", "held", "EPERM"]]])), Phase.TEST_CLEANUP, Effect.NOTHING),
    ((freed(0), ()), Phase.IDLE, Effect.READY),
]


def new(messages=0):
    """A conversation after the first messages of its start."""
    protocol = WorkerProtocol(StartCheck(sources="digest", limits=LIMITS), heartbeat_s=2)
    for (message, payload), _, _ in START[:messages]:
        protocol.receive(message, payload, 0)
    return protocol


def idle():
    return new(len(START))


def send(protocol, *messages, now=0):
    """The effect of the last one."""
    effect = None
    for message in messages:
        effect, _ = protocol.receive(message, EMPTY, now)
    return effect


def leased(*messages):
    protocol = idle()
    protocol.lease("j", 1)
    send(protocol, *messages)
    return protocol


# ---- workers that an earlier daemon has left ----


def found(*messages):
    protocol = WorkerProtocol(StartCheck(sources="digest", limits=LIMITS), heartbeat_s=2, token="secret")
    send(protocol, *messages)
    return protocol


def resume(state="idle", token="secret", **facts):
    return wire.Resume(token=token, state=state, jobs=1, **facts)


@pytest.mark.parametrize(
    ("state", "phase"),
    [("idle", Phase.IDLE), ("running", Phase.RUNNING), ("answered", Phase.RUNNING), ("cleaning", Phase.CLEANUP)],
)
def test_a_runner_with_the_token_goes_on_where_it_was(state, phase):
    protocol = found()
    assert send(protocol, resume(state, job_id="j", epoch=1)) is Effect.RESUMED
    assert (protocol.phase, protocol.starting) == (phase, False)


@pytest.mark.parametrize("token", ["", "secre", "secret ", "Secret"])
def test_a_runner_with_another_token_is_refused_and_nothing_changes(token):
    protocol = found()
    with pytest.raises(RemoteProtocolError, match="does not have the worker's token"):
        send(protocol, resume(token=token))
    assert protocol.phase is Phase.FOUND


@pytest.mark.parametrize(
    "message", [HELLO, READY, started(), done(), freed(), HEARTBEAT], ids=lambda each: type(each).__name__
)
def test_nothing_comes_before_the_token(message):
    with pytest.raises(RemoteProtocolError, match="had not sent Resume"):
        found(message)


def test_a_new_worker_has_nothing_to_resume():
    with pytest.raises(RemoteProtocolError, match="it sent Resume while it had not sent Hello"):
        send(new(), resume(token=""))


def test_an_answer_after_resume_has_to_be_of_the_attempt_that_resume_named():
    protocol = found(resume("answered", job_id="j", epoch=1))
    with pytest.raises(RemoteProtocolError, match="epoch 2"):
        send(protocol, done(epoch=2))
    assert send(protocol, done(), freed()) is Effect.FREED


def test_an_answer_that_resume_named_and_nobody_wants_may_not_come_any_more():
    protocol = found(resume("answered", job_id="j", epoch=1))
    assert protocol.collected() == wire.Collected(job_id="j", epoch=1)
    with pytest.raises(RemoteProtocolError, match="it sent Done while it cleaned up"):
        send(protocol, done())
    assert send(protocol, freed()) is Effect.FREED


# ---- the start ----


def test_a_start_leads_through_hello_ready_and_the_self_test_to_idle():
    protocol = new()
    assert (protocol.phase, protocol.starting) == (Phase.NEW, True)
    for (message, payload), phase, effect in START:
        assert protocol.receive(message, payload, 0)[0] is effect
        assert protocol.phase is phase
        assert protocol.starting is (phase is not Phase.IDLE)


def test_a_worker_of_an_engine_without_a_lockdown_runs_the_no_op_only():
    protocol = WorkerProtocol(StartCheck(sources="digest", limits=LIMITS, verified=False), heartbeat_s=2)
    for message, payload in (*(each[0] for each in START[:2]), (done(NOOP_ID, 0), answer([41, 42]))):
        protocol.receive(message, payload, 0)
    assert send(protocol, freed(0)) is Effect.READY
    assert protocol.phase is Phase.IDLE


ALL = {
    "hello": HELLO, "ready": READY, "started": started(PROBE_ID, 0), "printed": printed(PROBE_ID, 0),
    "done": done(PROBE_ID, 0), "freed": freed(0), "heartbeat": HEARTBEAT,
}  # fmt: skip
ALLOWED = [
    (0, Phase.NEW, {"hello"}),
    (1, Phase.STARTING, {"ready"}),
    (2, Phase.TEST_SENT, {"started", "done", "heartbeat"}),
    (3, Phase.TEST_RUNNING, {"done"}),
    (4, Phase.TEST_CLEANUP, {"freed", "heartbeat"}),
]


@pytest.mark.parametrize(
    ("messages", "phase", "name"),
    [(count, phase, name) for count, phase, allowed in ALLOWED for name in sorted(ALL.keys() - allowed)],
)
def test_a_message_out_of_order_ends_the_start(messages, phase, name):
    protocol = new(messages)
    with pytest.raises(RemoteProtocolError) as refused:
        protocol.receive(ALL[name], (), 0)
    assert refused.value.message == f"it sent {type(ALL[name]).__name__} while it {phase.value}"
    assert protocol.phase is phase


@pytest.mark.parametrize(("messages", "phase"), [(2, Phase.TEST_SENT), (4, Phase.TEST_CLEANUP)])
def test_heartbeats_between_and_before_self_tests_change_nothing(messages, phase):
    protocol = new(messages)
    assert send(protocol, HEARTBEAT) is Effect.NOTHING
    assert protocol.phase is phase


@pytest.mark.parametrize("messages", range(len(START) + 1))
def test_a_worker_may_report_at_any_time_that_it_is_broken(messages):
    protocol = new(messages)
    effect, message = protocol.receive(wire.Broken(reason="no numpy\n"), (), 0)
    assert (effect, message.reason) == (Effect.BROKEN, "no numpy\\n")


@pytest.mark.parametrize(
    ("before", "message", "payload"),
    [
        (0, wire.Hello(runner="1", sources="another digest", python="3.11"), ()),
        (3, done(PROBE_ID, 0), answer([[41], [["mount", "held", "EPERM"]]])),
        (4, wire.Freed(epoch=0, residue="files: a"), ()),
    ],
    ids=["hello", "probe", "freed"],
)
def test_a_failed_check_keeps_the_worker_from_the_next_phase(before, message, payload):
    protocol = new(before)
    phase = protocol.phase
    with pytest.raises(StartFailed):
        protocol.receive(message, payload, 0)
    assert protocol.phase is phase


@pytest.mark.parametrize("other", [started("j", 0), started(PROBE_ID, 1)])
def test_a_self_test_is_a_lease_as_any_other(other):
    with pytest.raises(RemoteProtocolError, match=f"it had been sent {PROBE_ID}, epoch 0"):
        send(new(2), other)


def test_every_phase_has_a_row_and_only_a_lease_leads_out_of_idle():
    assert TABLE.keys() == set(Phase)
    for phase, steps in TABLE.items():
        into_leased = {step.phase for step in steps.values()} & {Phase.LEASED}
        assert not into_leased or phase is Phase.LEASED
    assert {step.phase for step in TABLE[Phase.IDLE].values()} == {Phase.IDLE}


# ---- jobs ----


def test_an_honest_worker_is_accepted_up_to_its_second_job():
    protocol = leased()
    for message, effect in [
        (HEARTBEAT, Effect.HEARTBEAT),
        (started(), Effect.STARTED),
        (done(), Effect.DONE),
        (HEARTBEAT, Effect.HEARTBEAT),
        (freed(), Effect.FREED),
        (HEARTBEAT, Effect.HEARTBEAT),
    ]:
        assert send(protocol, message) is effect
    protocol.lease("k", 2)
    assert send(protocol, started("k", 2), done("k", 2), freed(2), BROKEN) is Effect.BROKEN


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ((), done("other")),
        ((), done(epoch=2)),
        ((), freed()),
        ((), printed()),
        ((done(),), started()),
        ((done(),), done()),
        ((done(),), freed(2)),
        ((), HELLO),
        ((), READY),
        ((), started("other")),
        ((), started(epoch=2)),
        ((started(),), started()),
        ((started(),), HEARTBEAT),
        ((started(),), freed()),
        ((started(),), done("other")),
        ((started(),), done(epoch=0)),
        ((started(), done()), done()),
        ((started(), done()), started()),
        ((started(), done()), freed(2)),
        ((started(), done(), freed()), freed()),
        ((started(), done(), freed()), done()),
        ((started(), done(), freed()), started()),
    ],
)
def test_a_message_out_of_order_or_about_another_lease_is_refused(before, message):
    protocol = leased(*before)
    with pytest.raises(RemoteProtocolError, match="it sent"):
        send(protocol, message)


def test_a_worker_without_a_job_has_nothing_to_report():
    for message in (started(), done(), freed()):
        with pytest.raises(RemoteProtocolError, match="had no job"):
            send(idle(), message)


def test_the_end_of_a_short_job_says_that_it_had_started():
    protocol = leased()
    assert send(protocol, done()) is Effect.DONE
    assert (protocol.phase, protocol.has_job) == (Phase.CLEANUP, True)
    assert send(protocol, freed()) is Effect.FREED
    assert (protocol.phase, protocol.has_job) == (Phase.IDLE, False)


def test_short_self_tests_are_checked_as_others():
    protocol = new(2)
    with pytest.raises(StartFailed):
        protocol.receive(done(PROBE_ID, 0), answer([41]), 0)
    assert protocol.phase is Phase.TEST_SENT
    protocol = new(2)
    protocol.receive(*START[3][0], 0)
    assert send(protocol, freed(0)) is Effect.READY


def test_heartbeats_may_queue_up_but_not_come_more_often_than_configured():
    protocol = idle()
    send(protocol, HEARTBEAT)
    send(protocol, *[HEARTBEAT] * 300, now=600)  # ten minutes of heartbeats, read at once
    flood = idle()
    send(flood, *[HEARTBEAT] * 16, now=1)
    with pytest.raises(RemoteProtocolError, match="it sent 17 heartbeats"):
        send(flood, HEARTBEAT, now=1)


# ---- output ----


def test_a_worker_that_was_asked_for_it_sends_its_jobs_output_until_it_is_done():
    protocol = leased()
    assert protocol.stream() == wire.Stream(job_id="j", epoch=1)
    assert protocol.stream() is None  # it is asked once
    assert send(protocol, started(), printed(), printed()) is Effect.PRINTED
    send(protocol, done())
    with pytest.raises(RemoteProtocolError, match="it sent Printed while it cleaned up"):
        send(protocol, printed())


@pytest.mark.parametrize(
    ("before", "message", "problem"),
    [
        ((), printed(), "had been sent a job"),
        ((started(),), printed("k"), "of job k"),
        ((started(),), printed(epoch=2), "epoch 2"),
        ((started(), done(), freed()), printed(), "had no job"),
    ],
)
def test_output_must_belong_to_the_lease_and_to_a_running_job(before, message, problem):
    protocol = leased()
    assert protocol.stream()
    send(protocol, *before)
    with pytest.raises(RemoteProtocolError, match=problem):
        send(protocol, message)


def test_output_that_was_not_asked_for_is_refused_and_a_request_holds_for_one_lease():
    with pytest.raises(RemoteProtocolError, match="nobody had asked"):
        send(leased(started()), printed())
    protocol = leased()
    protocol.stream()
    send(protocol, started(), done(), freed())
    assert protocol.stream() is None
    protocol.lease("k", 2)
    send(protocol, started("k", 2))
    with pytest.raises(RemoteProtocolError, match="nobody had asked"):
        send(protocol, printed("k", 2))


# ---- text and answers ----


@given(st.text(max_size=5000))
def test_text_of_a_worker_is_printable_and_bounded(text):
    seen = printable(text)
    assert seen.isprintable()
    assert len(seen) <= MAX_TEXT


def test_the_text_of_a_message_is_made_printable():
    protocol = leased(started())
    assert protocol.receive(done(reason="a\x1b[2Jb\n"), EMPTY, 0)[1].reason == "a\\x1b[2Jb\\n"
    starting = new(1)
    ready = wire.Ready(boot_ms=1, preload_ms=1, isolation="\x07", missing=("\u202e", "plain"))
    _, message = starting.receive(ready, (), 0)
    assert (message.isolation, message.missing) == ("\\x07", ("\\u202e", "plain"))
    assert starting.start.missing == ("\\u202e", "plain")


def test_the_names_of_files_stay_different_and_short():
    names = ("a\nb", "a\\nb", "\x01" * 255)
    payload = (*EMPTY, b"1", b"2", b"3")
    _, message = leased(started()).receive(done(files=names), payload, 0)
    assert message.files == names
    check_answer(message, payload, largest=100)


@pytest.mark.parametrize(
    ("lie", "payload"),
    [
        ({"outcome": Outcome.LOST}, EMPTY),
        ({"files": ("../x",)}, (*EMPTY, b"")),
        ({"files": ("a",)}, EMPTY),
        ({"exit_code": 256}, EMPTY),
        ({"signal": 1000}, EMPTY),
        ({"signal": -9}, EMPTY),
        ({"truncated": ("stdin",)}, EMPTY),
        ({}, EMPTY[:2]),
        ({}, (*EMPTY, b"x" * 1001)),
    ],
)
def test_an_answer_that_is_not_possible_is_refused(lie, payload):
    with pytest.raises(RemoteProtocolError):
        check_answer(done(**lie), payload, largest=1000)
    with pytest.raises(RemoteProtocolError):  # it checks only those that are not plain
        PoolController._done(SimpleNamespace(_largest_answer=1000), None, done(**lie), payload)
