"""The handshake of a starting worker: which question follows which answer, and what ends the start, for good or not."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool import values, wire
from pool.daemon import boot as boots
from pool.daemon import lockdown_probe, probe_inside
from pool.daemon.boot import NOOP_ID, Boot, BootError, Step
from pool.daemon.lockdown_probe import PROBE_ID, Row
from pool.errors import RemoteProtocolError
from pool.model import Outcome

LIMITS = {
    "wall_s": 10.0, "cpu_s": 5.0, "memory": 64 << 20, "tmp": 1 << 20, "output": 65536, "result": 65536, "processes": 8,
}  # fmt: skip
HELD = [["network", "held", "EPERM"], ["mount", "held", "EPERM"]]
HELLO = wire.Hello(runner="1", sources="digest", python="3.11")
READY = wire.Ready(boot_ms=12.5, preload_ms=3.0, isolation="namespaces")
FREED = wire.Freed(epoch=0)
STARTED = wire.Started(job_id=NOOP_ID, epoch=0)


def done(job_id=NOOP_ID, outcome=Outcome.OK, reason=""):
    return wire.Done(job_id=job_id, epoch=0, outcome=outcome, reason=reason)


def answer(value, *, stderr=b""):
    return [b"", stderr, b"", *values.encode(value, max_bytes=1 << 24)]


NOOP = (done(), answer([41, 42]))


def start(**fields):
    return Boot(sources="digest", limits=LIMITS, **fields)


def told(boot, *words):
    """Say one word after the other; the last answer. A word is a message, or a message with its payload."""
    question = None
    for word in words:
        question = boot.hear(*(word if isinstance(word, tuple) else (word, ())))
    return question


def failed(boot, *words):
    *before, last = words
    told(boot, *before)
    with pytest.raises(BootError) as caught:
        told(boot, last)
    return caught.value


def judged(rows, **fields):
    """A start up to its lockdown probe, which gives these rows."""
    boot = start(**fields)
    told(boot, HELLO, READY, NOOP, FREED, (done(PROBE_ID), answer(rows)))
    return boot


# ---- the order of things ----


def test_a_worker_is_greeted_asked_twice_and_up():
    boot = start()
    assert boot.step is Step.LAUNCHED
    assert told(boot, HELLO) is None
    assert boot.step is Step.GREETED
    first = told(boot, READY)
    assert (first.run.job_id, first.run.screened, boot.step) == (NOOP_ID, False, Step.TRYING)
    assert told(boot, STARTED) is None
    assert told(boot, NOOP) is None
    assert boot.step is Step.DONE
    second = told(boot, FREED)
    assert (second.run.job_id, second.run.screened, boot.step) == (PROBE_ID, False, Step.TRYING)
    assert told(boot, (done(PROBE_ID), answer(HELD))) is None
    assert boot.step is Step.DONE
    assert told(boot, FREED) is None
    assert boot.step is Step.UP
    assert (boot.isolation, boot.missing, boot.boot_ms) == ("namespaces", (), 12.5)
    assert boot.rows == (Row("network", "held", "EPERM"), Row("mount", "held", "EPERM"))


def test_a_worker_of_an_engine_without_a_lockdown_is_asked_for_the_no_op_only():
    boot = start(verified=False)
    assert told(boot, HELLO, READY, NOOP, FREED) is None
    assert (boot.step, boot.lockdown, boot.rows) == (Step.UP, "none", ())


def test_its_own_questions_have_the_templates_limits_and_are_not_screened():
    boot = start()
    for question in (told(boot, HELLO, READY), told(boot, NOOP, FREED)):
        run = question.run
        assert {name: getattr(run, name) for name in LIMITS} == LIMITS
        assert not run.screened
        assert wire.decode(wire.to_runner, wire.encode(run, question.payload))[0] == run


def test_the_probe_is_told_what_is_missing_and_what_the_template_allows():
    boot = start(allow=("subprocess",))
    ready = wire.Ready(boot_ms=1, preload_ms=1, isolation="partial", missing=("mount namespace: no",))
    question = told(boot, HELLO, ready, NOOP, FREED)
    args, kwargs = values.decode(question.payload[2:])
    assert args == (["mount namespace: no"], ["subprocess"], 8, 64 << 20, 1 << 20)
    assert kwargs == {}
    compile(question.payload[0], "probe", "exec")


SAID = {
    "hello": HELLO, "ready": READY, "done": done(), "freed": FREED,
    "broken": wire.Broken(reason="it is"),
}  # fmt: skip
ILLEGAL = [
    ("launched", (), {"ready", "done", "freed"}),
    ("greeted", (HELLO,), {"hello", "done", "freed"}),
    ("trying", (HELLO, READY), {"hello", "ready", "freed"}),
    ("done", (HELLO, READY, NOOP), {"hello", "ready", "done"}),
]


@pytest.mark.parametrize(
    ("step", "before", "name"), [(s, b, name) for s, b, names in ILLEGAL for name in sorted(names)]
)
def test_a_word_out_of_turn_ends_the_start(step, before, name):
    error = failed(start(), *before, SAID[name])
    assert str(error) == f"it said {type(SAID[name]).__name__} while its start was {step}"
    assert not error.permanent


@pytest.mark.parametrize(("step", "before"), [(step, before) for step, before, _ in ILLEGAL])
def test_beats_are_heard_at_any_time_and_change_nothing(step, before):
    boot = start()
    told(boot, *before)
    assert told(boot, wire.Heartbeat()) is None
    assert boot.step.value == step


@pytest.mark.parametrize(("step", "before"), [(step, before) for step, before, _ in ILLEGAL])
def test_a_worker_that_cannot_go_on_is_not_tried_again(step, before):
    del step
    error = failed(start(), *before, wire.Broken(reason="no numpy here"))
    assert (str(error), error.permanent) == ("no numpy here", True)


def test_other_sources_are_refused_for_good_with_the_command_that_mends_it():
    error = failed(start(), wire.Hello(runner="0.9", sources="f" * 40, python="3.11"))
    assert error.permanent
    assert "runner 0.9, sources ffffffffffff;" in str(error)
    assert "pool-admin image build" in str(error)


# ---- answers to its questions ----


@pytest.mark.parametrize("value", [None, [41], [42, 42], [41, 42, 43], (41, 42), "41", {"x": 1}, [41, "42"]], ids=repr)
def test_a_wrong_answer_to_the_no_op_ends_the_start(value):
    error = failed(start(), HELLO, READY, (done(), answer(value)))
    assert str(error) == "its no-op job gave a wrong value"
    assert not error.permanent


def test_a_no_op_that_gives_bytes_or_too_many_ends_the_start():
    assert "gave no value" in str(failed(start(), HELLO, READY, (done(), [b"", b"", b"", b"\xc1"])))
    assert "gave no value" in str(failed(start(), HELLO, READY, (done(), [])))
    assert "gave too much" in str(failed(start(), HELLO, READY, (done(), [b"x" * 4097, b"", b"", b"\x01"])))


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.OK])
def test_a_question_that_ends_otherwise_than_ok_ends_the_start_with_its_words(outcome):
    first = failed(start(), HELLO, READY, (done(outcome=outcome, reason="why"), [b"out", b"last words\xff", b""]))
    assert str(first) == f"its noop job ended {outcome}: why last words\ufffd"
    second = failed(start(), HELLO, READY, NOOP, FREED, done(PROBE_ID, outcome=outcome, reason="why"))
    assert str(second) == f"its lockdown-probe job ended {outcome}: why"


def test_words_of_a_failed_question_are_bounded():
    fault = wire.encode_fault(wire.Fault(type="OSError", message="m" * 60_000))
    for payload in ([b"", b"e" * 100_000, b""], [b"", b"", fault]):
        error = failed(start(), HELLO, READY, (done(outcome=Outcome.CRASH), payload))
        assert 500 < len(str(error)) < 600


def test_a_question_that_failed_without_a_word_on_stderr_is_told_by_its_error():
    fault = wire.encode_fault(wire.Fault(type="PermissionError", message="capset: not permitted"))
    error = failed(start(), HELLO, READY, (done(outcome=Outcome.ERROR, reason="it raised"), [b"", b"", fault]))
    assert str(error) == "its noop job ended error: it raised PermissionError: capset: not permitted"
    junk = failed(start(), HELLO, READY, (done(outcome=Outcome.ERROR, reason="it raised"), [b"", b"", b"\xc1"]))
    assert str(junk) == "its noop job ended error: it raised"


@pytest.mark.parametrize("rows", [(NOOP,), (NOOP, FREED, (done(PROBE_ID), answer(HELD)))], ids=["no-op", "probe"])
def test_a_question_that_left_something_behind_ends_the_start(rows):
    error = failed(start(), HELLO, READY, *rows, wire.Freed(epoch=0, residue="files: /tmp/x"))
    assert str(error) == "a job of the daemon's own left something behind: files: /tmp/x"


def test_a_probe_that_gets_through_ends_the_start_for_good_and_is_named():
    rows = [*HELD, ["ptrace", "broken", "it went through (0)"], ["signal", "broken", "process 7"]]
    boot = start()
    error = failed(boot, HELLO, READY, NOOP, FREED, (done(PROBE_ID), answer(rows)))
    assert error.permanent
    assert str(error) == (
        "its lockdown does not hold: ptrace (it went through (0)); signal (process 7); see pool-admin doctor"
    )
    assert [row.verdict for row in boot.rows] == ["held", "held", "broken", "broken"], "doctor shows the table"
    assert boot.lockdown == "broken"
    assert boot.step is not Step.UP


# ---- the table ----

ILL_FORMED = [
    None, [], {}, "held", 1, [[]], [["a"]], [["a", "held"]], [["a", "held", "b", "c"]], [["a", "Held", "b"]],
    [["a", "", "b"]], [[1, "held", "b"]], [["a", "held", None]], [["a", "held", b"b"]], [("a", "held", "b")],
    (["a", "held", "b"],), [*HELD, None], [["a", "held", "b"]] * 101, {"rows": HELD},
]  # fmt: skip


@pytest.mark.parametrize("value", ILL_FORMED, ids=lambda value: repr(value)[:40])
def test_a_value_that_is_no_table_ends_the_start_for_good(value):
    error = failed(start(), HELLO, READY, NOOP, FREED, (done(PROBE_ID), answer(value)))
    assert error.permanent
    assert "no table" in str(error)


def test_a_table_that_is_too_large_is_not_even_decoded():
    rows = [["a", "held", "x" * 70_000]]
    with pytest.raises(RemoteProtocolError, match="too large"):
        lockdown_probe.table(answer(rows))
    with pytest.raises(RemoteProtocolError, match="too large"):
        lockdown_probe.table([b"x" * 70_000, b"", b"", *values.encode(HELD, max_bytes=4096)])


def test_the_words_of_a_table_are_short_and_show_no_control_characters():
    (row,) = lockdown_probe.table(answer([["\x1b[2Jname" + "n" * 500, "held", "\u202e\n\ud800" * 300]]))
    assert len(row.probe) <= 200
    assert len(row.seen) <= 200
    assert (row.probe + row.seen).isprintable()


def test_a_full_table_of_a_hundred_rows_is_taken():
    assert len(lockdown_probe.table(answer([["a", "skipped", "b"]] * 100))) == 100


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.floats() | st.text(max_size=20)
    | st.binary(max_size=20) | st.sampled_from(["held", "broken", "skipped"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    | st.tuples(inner, inner, inner),
    max_leaves=30,
)  # fmt: skip
ROWS = st.lists(
    st.tuples(st.text(max_size=30), st.sampled_from(["held", "broken", "skipped", "maybe"]), st.text(max_size=30)).map(
        list
    ),
    max_size=6,
)
HOSTILE = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def taken(payload):
    """What came of a payload: a table whose rows are as they must be, or a refusal, and nothing else."""
    boot = start()
    told(boot, HELLO, READY, NOOP, FREED)
    try:
        told(boot, (done(PROBE_ID), payload))
    except BootError as error:
        words = str(error)
    else:
        words = ""
    assert words.isprintable()
    assert boot.step is (Step.TRYING if words else Step.DONE)
    if words:
        return None
    assert 0 < len(boot.rows) <= 100
    for row in boot.rows:
        assert row.verdict in {"held", "skipped"}
        assert (row.probe + row.seen).isprintable()
    return boot.rows


@HOSTILE
@given(value=JUNK | ROWS)
def test_whatever_value_a_worker_gives_it_is_a_table_or_the_end_of_the_start(value):
    rows = taken(answer(value))
    well_formed = isinstance(value, list) and value and all(isinstance(row, list) and len(row) == 3 for row in value)
    assert rows is None or well_formed


@HOSTILE
@given(frames=st.lists(st.binary(max_size=300), max_size=8))
def test_whatever_bytes_a_worker_gives_they_are_a_table_or_the_end_of_the_start(frames):
    taken(frames)


@HOSTILE
@given(
    value=st.recursive(
        st.none() | st.integers(-(1 << 31), 1 << 31) | st.text(max_size=5)
        | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=16)),
        lambda inner: st.lists(inner, max_size=5), max_leaves=20,
    )
)  # fmt: skip
def test_whatever_a_worker_writes_in_the_codecs_own_codes_is_a_table_or_the_end_of_the_start(value):
    taken([b"", b"", b"", msgpack.packb(value)])


# ---- in one word ----


def test_the_lockdown_in_one_word():
    assert start(verified=False).lockdown == "none"
    assert start().lockdown == "unproven"
    assert judged(HELD).lockdown == "verified"
    boot = start()
    told(boot, HELLO, replace_missing("landlock: this kernel has none"), NOOP, FREED, (done(PROBE_ID), answer(HELD)))
    assert boot.lockdown == "degraded"


def replace_missing(*missing):
    return wire.Ready(boot_ms=1, preload_ms=1, isolation="partial", missing=missing)


def test_a_worker_that_is_not_proven_yet_is_said_to_be_so():
    boot = start()
    told(boot, HELLO, replace_missing("landlock: none"))
    assert boot.lockdown == "unproven"


# ---- the probe itself ----


def outside():
    """Its rows by name where there is no sandbox: a plain process of this host."""
    command = [sys.executable, str(Path(probe_inside.__file__))]
    text = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return {line[:45].strip(): (line[45:55].strip(), line[55:]) for line in text.splitlines()}


@pytest.fixture(scope="module")
def rows_outside():
    return outside()


#: What any process may do, whoever runs it and on whatever kernel.
OPEN_TO_ALL = {
    "privileges", "run a program", "network", "scratch space past its size", "read of other processes",
    "limits and priority of another process", "processes past the limit", "memory past the limit",
    "descriptors that were left open", "system call socket", "system call memfd_create", "system call unshare",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(OPEN_TO_ALL))
def test_without_a_sandbox_the_probe_reports_broken_for_what_is_open_there(name, rows_outside):
    verdict, seen = rows_outside[name]
    assert verdict == "broken", seen


def test_an_attempt_whose_answer_says_nothing_is_no_proof():
    def odd():
        raise ZeroDivisionError("no sandbox did this")

    name, verdict, seen = probe_inside._row("odd", odd)
    assert (name, verdict) == ("odd", "broken")
    assert "could not be tried" in seen


@pytest.mark.parametrize("number", [1, 13, 38], ids=["EPERM", "EACCES", "ENOSYS"])
def test_an_attempt_is_held_when_it_is_refused_and_by_no_other_error(number):
    def refused(error):
        def attempt():
            raise OSError(error, "said the kernel")

        return probe_inside._row("x", lambda: probe_inside._refused(attempt, "x"))

    assert refused(number)[1] == "held"
    assert refused(22)[1] == "broken"  # EINVAL: the call was looked at
    assert refused(9)[1] == "broken"


ALL_NAMES = {
    "user": ({"user and pid namespaces: no"}, {"scratch space past its size", "the worker's link", "signal another process",
                                              "processes past the limit"}),
    "namespaces": ({"namespaces: the template's isolation is plain"}, {"scratch space past its size", "the worker's link",
                                                                        "signal another process", "processes past the limit"}),
    "mount": ({"mount namespace: no"}, {"scratch space past its size", "the worker's link"}),
    "landlock": ({"landlock: none"}, {"write to a device"}),
    "all": ({"user: no", "landlock: none"}, {"scratch space past its size", "the worker's link", "signal another process",
                                             "processes past the limit", "read of other processes", "write to a device"}),
    "subprocess": ({"-"}, {"run a program"}),
}  # fmt: skip


@pytest.mark.parametrize(("missing", "skipped"), ALL_NAMES.values(), ids=ALL_NAMES)
def test_only_what_a_missing_part_would_stop_is_skipped(missing, skipped, monkeypatch):
    monkeypatch.setattr(probe_inside, "_row", lambda name, attempt: [name, "held" if attempt else "skipped", ""])
    options = ["subprocess"] if missing == {"-"} else []
    rows = probe_inside.main(sorted(missing), options, 8, 1, 1)
    assert {name for name, verdict, _ in rows if verdict == "skipped"} == skipped
    assert len(rows) == len({name for name, *_ in rows}) <= 100


def test_the_probe_fits_into_its_table_and_its_words_say_what_broke():
    rows = (Row("a", "held", "x"), Row("b", "broken", "y"), Row("c", "skipped", "z"))
    assert lockdown_probe.broken(rows) == "b (y)"
    assert lockdown_probe.broken([replace(row, verdict="held") for row in rows]) == ""
    assert boots.NOOP_ID != PROBE_ID
