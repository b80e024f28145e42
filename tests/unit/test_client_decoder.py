"""`Client(decode="process")`: values are decoded in a helper process; its crash fails one result only."""

import os
import signal
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool import Client, Outcome, PoolExecutor, values, wire
from pool.client import decoder
from pool.client.decoder import Helper, ProcessDecoder, Reply
from pool.errors import InvalidJobError, ValueCodecError
from tests.support.process import python, threads
from tests.support.waiting import Waiting, eventually, in_child

DOUBLE = "def main(x):\n    return x * 2"


def frames_of(value):
    return [bytearray(each) for each in values.encode(value, max_bytes=1 << 30)]


@pytest.fixture(scope="module")
def made():
    """One for all tests: a helper that a test has ended is replaced for the next one."""
    made = ProcessDecoder()
    yield made
    made.close()


@pytest.fixture(scope="module")
def decode(made):
    return lambda value: made.decode(frames_of(value))


def helpers(made):
    return [each.pid for each in made._helpers[os.getpid()]._idle]


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# ---- values ----

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
)
VALUES = st.recursive(SCALARS, lambda each: st.lists(each) | st.dictionaries(st.text(), each) | st.tuples(each, each))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=VALUES)
def test_values_are_the_same_as_without_the_helper(decode, value):
    assert decode(value) == value


def test_a_large_array_arrives_in_the_memory_that_it_was_received_in(made):
    array = np.arange(1 << 18)
    frames = frames_of(array)
    found = made.decode(frames)
    assert np.array_equal(found, array)
    frames[1][:8] = (7).to_bytes(8, "little")
    assert found[0] == 7


def test_frames_with_zones_categories_and_bits_are_the_same(decode):
    frame = pd.DataFrame(
        {
            "category": pd.Categorical(["a", "b"] * 50_000),
            "bit": [True, False] * 50_000,
            "at": pd.date_range("2026-01-01", periods=100_000, freq="s", tz="Europe/Berlin"),
            "text": ["x", None] * 50_000,
        }
    )
    pd.testing.assert_frame_equal(decode(frame), frame)


def test_bytes_that_are_no_value_are_refused_and_the_helper_goes_on(made):
    assert made.decode(frames_of(1)) == 1
    before = helpers(made)
    with pytest.raises(ValueCodecError, match="not an encoded value"):
        made.decode([bytearray(b"\xc1")])
    assert made.decode(frames_of(2)) == 2
    assert len(before) == 1


# ---- helpers that end ----


@pytest.mark.parametrize(
    ("ended_by", "seen"), [(signal.SIGFPE, "killed by SIGFPE"), (signal.SIGKILL, "killed by SIGKILL")]
)
def test_a_helper_that_crashes_ends_this_value_only(made, ended_by, seen):
    assert made.decode(frames_of(1)) == 1
    (helper,) = made._helpers[os.getpid()]._idle
    pid = helper.pid
    os.kill(pid, signal.SIGSTOP)
    decoding = Waiting(made.decode, frames_of(2))
    eventually(lambda: os.fstat(helper._given).st_size > 0)  # from here on it is this helper that has the value
    os.kill(pid, ended_by)
    os.kill(pid, signal.SIGCONT)
    error = decoding.end()
    assert isinstance(error, ValueCodecError)
    assert seen in error.message
    assert made.decode(frames_of(3)) == 3
    assert helpers(made) != [pid]


def test_a_helper_that_hangs_is_killed_at_the_deadline(made, monkeypatch):
    assert made.decode(frames_of(1)) == 1
    (pid,) = helpers(made)
    monkeypatch.setattr(decoder, "CPU_S", 0.1)
    monkeypatch.setattr(decoder, "EXTRA_S", 0.1)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ValueCodecError, match="took longer than"):
        made.decode(frames_of(2))
    assert gone(pid)
    monkeypatch.undo()
    assert made.decode(frames_of(3)) == 3


def test_a_value_that_takes_too_much_memory_is_refused(made, monkeypatch):
    frames = frames_of([{} for _ in range(300_000)])
    assert len(made.decode(frames)) == 300_000
    monkeypatch.setattr(decoder, "MEMORY_BYTES", 8 << 20)
    monkeypatch.setattr(decoder, "MEMORY_PER_BYTE", 0)
    with pytest.raises(ValueCodecError, match="memory"):
        made.decode(frames)
    assert made.decode(frames_of(3)) == 3


def test_a_value_that_takes_too_much_processor_time_is_refused(made, monkeypatch):
    frames = frames_of([Decimal(n) for n in range(1_500_000)])  # five seconds, and up to one is allowed
    monkeypatch.setattr(decoder, "CPU_S", 0.001)
    monkeypatch.setattr(decoder, "CPU_S_PER_MIB", 0.0)
    monkeypatch.setattr(decoder, "EXTRA_S", 60.0)
    with pytest.raises(ValueCodecError, match="more CPU time"):
        made.decode(frames)
    monkeypatch.undo()
    assert made.decode(frames_of(3)) == 3


def test_a_helper_that_ended_while_it_was_idle_is_replaced_unnoticed(made):
    made.decode(frames_of(1))
    (pid,) = helpers(made)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG))
    assert made.decode(frames_of(2)) == 2


@pytest.mark.parametrize(
    "reply",
    [Reply(), Reply(head=-5, buffers=[-9]), Reply(head=1 << 40), Reply(head=9, buffers=[5]), Reply(head=9, buffers=[1, 1]),
     Reply(head=9, buffers=[-(1 << 60)])],
)  # fmt: skip
def test_an_answer_that_does_not_fit_the_request_is_refused(reply):
    helper = object.__new__(Helper)
    with pytest.raises(ValueCodecError, match="no valid answer"):
        helper._frames(reply, frames_of(np.zeros(1 << 16)), most=1 << 20)


# ---- what a helper may do ----


def test_a_helper_can_open_no_file_and_no_socket(made):
    made.decode(frames_of(1))
    (pid,) = helpers(made)
    limits = {
        line[:26].strip(): line[26:].split()[:2] for line in Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    }
    assert limits["Max open files"] == ["0", "0"]
    assert limits["Max core file size"] == ["0", "0"]
    assert "unlimited" not in limits["Max address space"]
    names = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    kinds = sorted(name.split(":")[0] for name in names)
    assert kinds == ["/memfd", "/memfd", "socket"], names
    assert "HOME=" not in Path(f"/proc/{pid}/environ").read_text()


# ---- the client ----


@pytest.fixture
def client(daemon):
    with Client(daemon.endpoint, timeout=60, decode="process") as client:
        yield client


def test_run_map_batches_streams_and_executors_decode_in_the_helper(client):
    assert client.run(DOUBLE, entry="main", args=[21]).value == 42
    assert [each.value for each in client.map(DOUBLE, [[1], [2]], entry="main")] == [2, 4]
    batch = client.submit_many([{"code": "result = 'batch'"}])
    assert [each.value for each in client.results(batch)] == ["batch"]
    assert list(client.stream(client.submit("result = 5")))[-1].value == 5
    with PoolExecutor(client=client) as executor:
        assert list(executor.map(abs, [-1, -2])) == [1, 2]
    assert len(helpers(client._decoder)) == 1


def test_a_crash_of_the_helper_ends_the_result_with_a_typed_error(client, daemon):
    assert client.run("result = 1").value == 1
    (pid,) = helpers(client._decoder)
    os.kill(pid, signal.SIGSTOP)
    running = Waiting(client.run, "result = 2")
    eventually(lambda: not helpers(client._decoder))
    os.kill(pid, signal.SIGKILL)
    result = running.end()
    assert (result.outcome, result.error.type) == (Outcome.ERROR, "ValueCodecError")
    assert "killed by SIGKILL" in result.error.message
    assert client.run("result = 3").value == 3


def test_threads_have_a_helper_each_up_to_the_maximum(client):
    threads = [Waiting(lambda: [client.run(DOUBLE, entry="main", args=[n]).value for n in range(20)]) for _ in range(8)]
    assert [each.end() for each in threads] == [[2 * n for n in range(20)]] * 8
    assert 1 <= len(helpers(client._decoder)) <= decoder.MAX_HELPERS


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_helper_of_its_own(client):
    assert client.run("result = 1").value == 1
    assert in_child(lambda: client.run("result = 2", timeout=60).value == 2 and client.close() is None) == 0
    assert client.run("result = 3").value == 3


def test_closing_the_client_ends_its_helpers(daemon):
    client = Client(daemon.endpoint, decode="process")
    client.run("result = 1")
    (pid,) = helpers(client._decoder)
    client.close()
    assert gone(pid)


def test_a_helper_ends_with_the_process_that_started_it(daemon):
    program = (
        "import os, sys; from pool import Client; client = Client(sys.argv[1], decode='process')\n"
        "client.run('result = 1')\nprint(client._decoder._helpers[os.getpid()]._idle[0].pid, flush=True)\nos._exit(0)"
    )
    done = python("-c", program, daemon.endpoint, check=True)
    eventually(lambda: gone(int(done.stdout)))


@pytest.mark.parametrize("bad", ["Process", "thread", "", None, True, 1])
def test_where_to_decode_is_inline_or_process(bad):
    with pytest.raises(InvalidJobError, match=r"decode: got .*give 'inline' or 'process'"):
        Client("/x", decode=bad)


def test_nothing_is_started_before_the_first_value(daemon):
    before = threads()
    with Client(daemon.endpoint, decode="process") as client:
        assert client._decoder._helpers.get(os.getpid()) is None
        client.submit("")
        assert client._decoder._helpers.get(os.getpid()) is None
    assert threads() <= before
    assert daemon.of(wire.Submit)
