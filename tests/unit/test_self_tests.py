"""The checks of a worker's start: sources, lockdown probe or no-op; which end the start, and which end it for good."""

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool import values, wire
from pool.daemon import probe_inside
from pool.daemon.self_tests import NOOP_ID, PROBE_ID, ProbeRow, StartCheck, StartFailed, broken, probe_rows
from pool.errors import RemoteProtocolError
from pool.model import Outcome
from tests.support.process import python

LIMITS = {
    "wall_s": 10.0, "cpu_s": 5.0, "memory": 64 << 20, "tmp": 1 << 20, "output": 65536, "result": 65536, "processes": 8,
}  # fmt: skip
VERDICTS = ("held", "broken", "skipped")
HELD = [["network", "held", "EPERM"], ["mount", "held", "EPERM"]]
READY = wire.Ready(boot_ms=12.5, preload_ms=3.0, isolation="namespaces")


def done(job_id=NOOP_ID, outcome=Outcome.OK, reason=""):
    return wire.Done(job_id=job_id, epoch=0, outcome=outcome, reason=reason)


def answer(value, *, stderr=b""):
    return [b"", stderr, b"", *values.encode(value, max_bytes=1 << 24)]


def table(rows, value=(41, 42)):
    """The answer of the lockdown probe."""
    return answer([list(value), rows])


def start(**fields):
    return StartCheck(sources="digest", limits=LIMITS, **fields)


def noop_next(ready=READY, **fields):
    """A start of an engine without a lockdown, whose no-op job comes next."""
    return probe_next(ready, verified=False, **fields)


def probe_next(ready=READY, **fields):
    """A start whose lockdown probe comes next."""
    check = start(**fields)
    check.take_ready(ready)
    return check


def judged(rows, **fields):
    check = probe_next(**fields)
    check.check_done(done(PROBE_ID), table(rows))
    return check


def failed(call, *arguments):
    with pytest.raises(StartFailed) as caught:
        call(*arguments)
    return caught.value


# ---- the tests ----


def test_the_probe_must_pass_and_what_the_worker_reported_is_kept():
    check = probe_next()
    assert check.test.run.job_id == PROBE_ID
    check.check_done(done(PROBE_ID), table(HELD))
    assert check.test is None
    assert (check.isolation, check.missing, check.boot_ms) == ("namespaces", (), 12.5)
    assert [(row.probe, row.verdict, row.seen) for row in check.rows] == [tuple(row) for row in HELD]


def test_a_worker_of_an_engine_without_a_lockdown_has_the_no_op_only():
    check = noop_next()
    assert check.test.run.job_id == NOOP_ID
    check.check_done(done(), answer([41, 42]))
    assert (check.test, check.lockdown, check.rows) == (None, "none", ())


def test_self_tests_have_the_templates_limits_and_are_not_screened():
    for test in (noop_next().test, probe_next().test):
        assert {name: getattr(test.run, name) for name in LIMITS} == LIMITS
        assert not test.run.screened
        assert wire.decode(wire.to_runner, wire.encode(test.run, test.payload))[0] == test.run


def test_the_probe_is_told_what_is_missing_and_what_the_template_allows():
    ready = wire.Ready(boot_ms=1, preload_ms=1, isolation="partial", missing=("mount namespace: no",))
    test = probe_next(ready, allow=("subprocess",)).test
    args, kwargs = values.decode(test.payload[2:])
    assert args == (41, ["mount namespace: no"], ["subprocess"], 8, 64 << 20, 1 << 20)
    assert kwargs == {}
    compile(test.payload[0], "probe", "exec")


def test_other_sources_are_refused_for_good_with_the_command_that_mends_it():
    error = failed(start().check_hello, wire.Hello(runner="0.9", sources="f" * 40, python="3.11"))
    assert error.permanent
    assert "runner 0.9, sources ffffffffffff;" in str(error)
    assert "pool-admin image build" in str(error)


# ---- their answers ----


@pytest.mark.parametrize("value", [None, [41], [42, 42], [41, 42, 43], (41, 42), "41", {"x": 1}, [41, "42"]], ids=repr)
def test_a_wrong_value_ends_the_start(value):
    for error in (
        failed(noop_next().check_done, done(), answer(value)),
        failed(probe_next().check_done, done(PROBE_ID), answer([value, HELD])),
    ):
        assert str(error) == "its self-test returned a wrong value"
        assert not error.permanent


def test_a_no_op_that_returns_bytes_or_too_many_ends_the_start():
    assert "returned no value" in str(failed(noop_next().check_done, done(), [b"", b"", b"", b"\xc1"]))
    assert "returned no value" in str(failed(noop_next().check_done, done(), []))
    assert "too large" in str(failed(noop_next().check_done, done(), [b"x" * 4097, b"", b"", b"\x01"]))


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.OK])
def test_a_self_test_that_does_not_end_ok_ends_the_start_with_its_output(outcome):
    payload = [b"out", b"the end\xff", b""]
    first = failed(noop_next().check_done, done(outcome=outcome, reason="why"), payload)
    assert str(first) == f"its noop job ended {outcome}: why the end\ufffd"
    second = failed(probe_next().check_done, done(PROBE_ID, outcome=outcome, reason="why"), ())
    assert str(second) == f"its lockdown-probe job ended {outcome}: why"


def test_the_output_of_a_failed_self_test_is_bounded():
    fault = wire.encode_fault(wire.Fault(type="OSError", message="m" * 60_000))
    for payload in ([b"", b"e" * 100_000, b""], [b"", b"", fault]):
        error = failed(noop_next().check_done, done(outcome=Outcome.CRASH), payload)
        assert 500 < len(str(error)) < 600


def test_a_self_test_that_failed_without_stderr_is_described_by_its_error():
    failure = done(outcome=Outcome.ERROR, reason="it raised")
    fault = wire.encode_fault(wire.Fault(type="PermissionError", message="capset: not permitted"))
    error = failed(noop_next().check_done, failure, [b"", b"", fault])
    assert str(error) == "its noop job ended error: it raised PermissionError: capset: not permitted"
    junk = failed(noop_next().check_done, failure, [b"", b"", b"\xc1"])
    assert str(junk) == "its noop job ended error: it raised"


@pytest.mark.parametrize("check", [probe_next(), judged(HELD)], ids=["no-op", "probe"])
def test_a_self_test_that_left_something_behind_ends_the_start(check):
    error = failed(check.check_freed, wire.Freed(epoch=0, residue="files: /tmp/x"))
    assert str(error) == "a self-test left something behind: files: /tmp/x"


def test_a_probe_that_gets_through_ends_the_start_for_good_and_is_named():
    rows = [*HELD, ["ptrace", "broken", "it went through (0)"], ["signal", "broken", "process 7"]]
    check = probe_next()
    error = failed(check.check_done, done(PROBE_ID), table(rows))
    assert error.permanent
    assert str(error) == (
        "its lockdown does not hold: ptrace (it went through (0)); signal (process 7); see pool-admin doctor"
    )
    assert [row.verdict for row in check.rows] == ["held", "held", "broken", "broken"], "doctor shows the table"
    assert check.lockdown == "broken"


# ---- the table ----

ILL_FORMED = [
    None, [], {}, "held", 1, [[]], [["a"]], [["a", "held"]], [["a", "held", "b", "c"]], [["a", "Held", "b"]],
    [["a", "", "b"]], [[1, "held", "b"]], [["a", "held", None]], [["a", "held", b"b"]], [("a", "held", "b")],
    (["a", "held", "b"],), [*HELD, None], [["a", "held", "b"]] * 101, {"rows": HELD},
]  # fmt: skip


@pytest.mark.parametrize("value", ILL_FORMED, ids=lambda value: repr(value)[:40])
def test_a_value_that_is_no_table_ends_the_start_for_good(value):
    for payload in (table(value), answer(value), answer([[41, 42], HELD, HELD]), answer([[41, 42]])):
        error = failed(probe_next().check_done, done(PROBE_ID), payload)
        assert error.permanent
        assert "no table" in str(error)


def test_a_table_that_is_too_large_is_not_even_decoded():
    rows = [["a", "held", "x" * 70_000]]
    with pytest.raises(RemoteProtocolError, match="too large"):
        probe_rows(table(rows))
    with pytest.raises(RemoteProtocolError, match="too large"):
        probe_rows([b"x" * 70_000, b"", b"", *values.encode([[41, 42], HELD], max_bytes=4096)])


def test_the_text_of_a_table_is_short_and_shows_no_control_characters():
    (row,) = probe_rows(table([["\x1b[2Jname" + "n" * 500, "held", "\u202e\n\ud800" * 300]]))
    assert len(row.probe) <= 200
    assert len(row.seen) <= 200
    assert (row.probe + row.seen).isprintable()


def test_a_full_table_of_a_hundred_rows_is_taken():
    assert len(probe_rows(table([["a", "skipped", "b"]] * 100))) == 100


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
    """The table in a payload, each row of it checked; None if it was refused. Nothing else may come of a payload."""
    check = probe_next()
    try:
        check.check_done(done(PROBE_ID), payload)
    except StartFailed as failure:
        error = str(failure)
    else:
        error = ""
    assert error.isprintable()
    if error:
        return None
    assert 0 < len(check.rows) <= 100
    for row in check.rows:
        assert row.verdict in {"held", "skipped"}
        assert (row.probe + row.seen).isprintable()
    return check.rows


@HOSTILE
@given(value=JUNK | ROWS)
def test_any_value_is_a_table_or_ends_the_start(value):
    rows = taken(table(value))
    assert taken(answer(value)) is None
    well_formed = isinstance(value, list) and value and all(isinstance(row, list) and len(row) == 3 for row in value)
    assert rows is None or well_formed


CODED = st.recursive(
    st.none() | st.integers(-(1 << 31), 1 << 31) | st.text(max_size=5)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=16)),
    lambda inner: st.lists(inner, max_size=5), max_leaves=20,
)  # fmt: skip


@HOSTILE
@given(
    frames=st.lists(st.binary(max_size=300), max_size=8) | CODED.map(lambda tree: [b"", b"", b"", msgpack.packb(tree)])
)
def test_any_bytes_and_anything_in_the_codecs_own_codes_are_a_table_or_end_the_start(frames):
    taken(frames)


# ---- in one word ----


def partial(*missing):
    return wire.Ready(boot_ms=1, preload_ms=1, isolation="partial", missing=missing)


def test_the_lockdown_in_one_word():
    assert start(verified=False).lockdown == "none"
    assert start().lockdown == "unproven"
    assert judged(HELD).lockdown == "verified"
    check = probe_next(partial("landlock: this kernel has none"))
    assert check.lockdown == "unproven", "what is missing does not count before the probe"
    check.check_done(done(PROBE_ID), table(HELD))
    assert check.lockdown == "degraded"


# ---- the probe itself ----


def outside():
    """Its rows by name where there is no sandbox: a plain process of this host."""
    text = python(probe_inside.__file__, check=True).stdout
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


def test_an_attempt_that_could_not_be_tried_counts_as_broken():
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
    value, rows = probe_inside.main(41, sorted(missing), options, 8, 1, 1)
    assert value == [41, 42]
    assert {name for name, verdict, _ in rows if verdict == "skipped"} == skipped
    assert len(rows) == len({name for name, *_ in rows}) <= 100


def test_the_attempts_that_succeeded_are_named():
    rows = [ProbeRow(probe=name, verdict=verdict, seen=name * 2) for name, verdict in zip("abc", VERDICTS, strict=True)]
    assert broken(rows) == "b (bb)"
    assert broken([row for row in rows if row.verdict != "broken"]) == ""
