"""A job's output at the client while the job runs, with the fake daemon."""

import threading
from concurrent.futures import Future
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool import Client, JobResult, OutputEvent, wire
from pool.client.pending import Delivery
from pool.client.results import OutputReader, to_result
from pool.errors import ClosedError, DaemonUnreachableError, InvalidJobError, ResultTimeoutError, UnknownJobError
from pool.model import Outcome
from tests.support.waiting import Waiting, eventually
from tests.unit.fake_daemon import HOLD, FakeDaemon


def held(client, daemon, received, **options):
    """A job that runs until the test ends it, with its output going to `received`."""
    running = Waiting(lambda: client.run(HOLD, job_id="j", on_stdout=received.append, timeout=120, **options))
    daemon.job("j")
    return running


def text_of(events, stream="stdout"):
    return "".join(each.text for each in events if isinstance(each, OutputEvent) and each.stream == stream)


# ---- run with callbacks ----


def test_output_reaches_the_callback_while_the_job_runs(client, daemon):
    received = []
    running = held(client, daemon, received)
    daemon.print("j", "stdout", 0, b"first\n")
    eventually(lambda: received == ["first\n"])
    daemon.print("j", "stdout", 6, b"second\n")
    eventually(lambda: received == ["first\n", "second\n"])
    daemon.finish("j", value=7, output=(b"first\nsecond\nthird\n", b"unreceived\n"))
    result = running.end()
    assert (result.value, result.stdout, result.stderr) == (7, "first\nsecond\nthird\n", "unreceived\n")
    assert received == ["first\n", "second\n", "third\n"]


def test_stdout_and_stderr_go_each_to_their_own_callback_on_the_caller_s_thread(client, daemon):
    out, err = [], []

    def call():
        me = threading.get_ident()
        return me, client.run(
            HOLD, job_id="j", on_stdout=lambda text: out.append((text, threading.get_ident())),
            on_stderr=lambda text: err.append((text, threading.get_ident())),
        )  # fmt: skip

    running = Waiting(call)
    daemon.job("j")
    daemon.print("j", "stderr", 0, b"oops\n")
    daemon.print("j", "stdout", 0, b"fine\n")
    daemon.finish("j", output=(b"fine\n", b"oops\n"))
    me, _ = running.end()
    assert (out, err) == ([("fine\n", me)], [("oops\n", me)])


def test_without_callbacks_nothing_is_streamed(client, daemon):
    client.run("result = 1")
    assert not daemon.of(wire.Submit)[0].stream


def test_a_piece_that_never_arrived_is_taken_from_the_result(client, daemon):
    received = []
    running = held(client, daemon, received)
    daemon.print("j", "stdout", 0, b"abc")
    daemon.print("j", "stdout", 6, b"ghi")  # the piece between was dropped on the way
    daemon.finish("j", output=(b"abcdefghi", b""))
    running.end()
    assert "".join(received) == "abcdefghi"


def test_a_piece_that_arrives_twice_is_delivered_once(client, daemon):
    received = []
    running = held(client, daemon, received)
    for offset, text in ((0, b"abcd"), (0, b"abcd"), (2, b"cdef"), (0, b"ab"), (6, b"g")):
        daemon.print("j", "stdout", offset, text)
    daemon.finish("j", output=(b"abcdefg", b""))
    running.end()
    assert "".join(received) == "abcdefg"


def test_a_slow_reader_gets_consecutive_pieces_of_a_stream_as_one():
    reader = OutputReader()
    events = reader.events(request := _answered(b"abcdefg", b"xy"), None, to_result)
    reader.put(wire.Output(job_id="j", name="stdout", offset=0), [b"a"])
    assert next(events).text == "a"
    for name, offset, piece in (("stdout", 1, b"b"), ("stdout", 2, b"cd"), ("stderr", 0, b"xy"), ("stdout", 4, b"ef")):
        reader.put(wire.Output(job_id="j", name=name, offset=offset), [piece])
    reader.end(request)
    *output, result = events
    assert [(each.stream, each.text, each.offset) for each in output] == [
        ("stdout", "bcd", 1), ("stderr", "xy", 0), ("stdout", "ef", 4), ("stdout", "g", 6),
    ]  # fmt: skip
    assert (result.stdout, result.stderr) == ("abcdefg", "xy")


def test_an_error_of_the_pool_that_a_callback_raises_ends_the_job_too(client, daemon):
    running = Waiting(lambda: client.run(HOLD, job_id="j", on_stdout=lambda _: client.cancel("nobody-s")))
    daemon.job("j")
    daemon.print("j", "stdout", 0, b"now")
    assert isinstance(running.end(), UnknownJobError)
    assert [each.job_id for each in daemon.of(wire.Cancel)] == ["nobody-s", "j"]


def test_a_callback_may_use_the_client(client, daemon):
    values = []
    running = held(client, daemon, [], on_stderr=lambda _: values.append(client.run("result = 6 * 7").value))
    daemon.print("j", "stderr", 0, b"x")
    eventually(lambda: values == [42])
    daemon.finish("j")
    running.end()


def test_a_slow_callback_delays_no_other_job(client, daemon):
    go = threading.Event()
    running = Waiting(lambda: client.run(HOLD, job_id="j", on_stdout=lambda _: go.wait(20)))
    daemon.job("j")
    daemon.print("j", "stdout", 0, b"x")
    for _ in range(20):
        assert client.run("result = 1").value == 1
    go.set()
    daemon.finish("j", output=(b"x", b""))
    running.end()


@pytest.mark.parametrize("name", ["on_stdout", "on_stderr"])
@pytest.mark.parametrize("given", ["print", 1, [], b"x"])
def test_a_callback_that_is_not_callable_is_refused_before_anything_is_sent(client, daemon, name, given):
    with pytest.raises(InvalidJobError, match=f"{name}: .*give a function"):
        client.run("result = 1", **{name: given})
    assert not daemon.received


def test_the_wait_ends_at_the_timeout_and_the_job_goes_on(client, daemon):
    received = []
    running = Waiting(lambda: client.run(HOLD, job_id="j", on_stdout=received.append, timeout=5))
    daemon.job("j")
    daemon.print("j", "stdout", 0, b"x")
    assert isinstance(running.end(), ResultTimeoutError)
    assert received == ["x"]
    assert not daemon.of(wire.Cancel)


def test_a_refused_job_is_refused_as_without_callbacks(client, daemon):
    daemon.on(wire.Submit, lambda call: call.refuse("backlog_full", "too many", retry_after_s=1.0))
    with pytest.raises(Exception, match="too many") as caught:
        client.run("result = 1", on_stdout=print)
    assert caught.value.fields["retry_after_s"] == 1.0


# ---- stream ----


def test_events_arrive_while_the_job_prints_and_the_result_is_the_last(client, daemon):
    client.submit(HOLD, job_id="j")
    events = client.stream("j", timeout=120)
    reader = Waiting(lambda: list(events))
    daemon.wait_for(wire.Watch)
    assert daemon.of(wire.Watch)[0].stream
    eventually(lambda: daemon.job("j").watchers)
    daemon.print("j", "stdout", 0, b"a\n")
    daemon.print("j", "stderr", 0, b"b\n")
    daemon.finish("j", value=1, output=(b"a\nc\n", b"b\n"))
    *output, result = reader.end()
    assert output == [
        OutputEvent(stream="stdout", text="a\n", offset=0),
        OutputEvent(stream="stderr", text="b\n", offset=0),
        OutputEvent(stream="stdout", text="c\n", offset=2),
    ]
    assert isinstance(result, JobResult)
    assert (result.value, result.stdout) == (1, "a\nc\n")


def test_a_job_that_has_ended_gives_its_output_and_then_the_result(client, daemon):
    client.submit(HOLD, job_id="j")
    daemon.finish("j", Outcome.TIMEOUT, output=(b"out", b"err"))
    eventually(lambda: daemon.job("j").result)
    assert [text_of([each], each.stream) for each in list(client.stream("j"))[:2]] == ["out", "err"]
    assert list(client.stream("j"))[-1].outcome is Outcome.TIMEOUT


def test_leaving_the_loop_early_leaves_nothing_open(client, daemon):
    client.submit(HOLD, job_id="j")
    events = client.stream("j")
    reader = Waiting(lambda: next(events))
    eventually(lambda: daemon.job("j").watchers)
    daemon.print("j", "stdout", 0, b"x")
    assert reader.end().text == "x"
    events.close()
    daemon.finish("j", value=3)
    assert client.result("j", timeout=60).value == 3
    assert not daemon.of(wire.Cancel)


def test_streaming_an_unknown_job_raises_unknown_job_error(client):
    with pytest.raises(UnknownJobError):
        list(client.stream("never-received-of"))


@pytest.mark.parametrize("job_id", ["", "a b", "x" * 200, None, 7])
def test_a_wrong_job_id_is_refused_at_once(client, daemon, job_id):
    with pytest.raises(InvalidJobError, match="job_id"):
        client.stream(job_id)
    assert not daemon.received


def test_a_stream_ends_at_its_timeout(client, daemon):
    client.submit(HOLD, job_id="j")
    with pytest.raises(ResultTimeoutError, match="goes on"):
        list(client.stream("j", timeout=0.2))
    with pytest.raises(InvalidJobError, match="timeout"):
        client.stream("j", timeout=-1)


def test_closing_the_client_ends_the_stream_with_closed_error(client, daemon):
    client.submit(HOLD, job_id="j")
    reader = Waiting(lambda: list(client.stream("j")))
    eventually(lambda: daemon.job("j").watchers)
    client.close()
    assert isinstance(reader.end(), ClosedError)


def test_a_daemon_that_stops_answering_ends_the_stream(tmp_path):
    with FakeDaemon(tmp_path / "s") as daemon, Client(daemon.endpoint, timeout=1) as client:
        client.submit(HOLD, job_id="j")
        reader = Waiting(lambda: list(client.stream("j")))
        eventually(lambda: daemon.job("j").watchers)
        daemon.on(wire.Ping, lambda _: None)
        assert isinstance(reader.end(), DaemonUnreachableError)


def test_after_a_lost_connection_the_stream_continues_where_it_was(tmp_path):
    with Client(f"ipc://{tmp_path}/s", timeout=120) as client:
        with FakeDaemon(tmp_path / "s") as before:
            received = []
            running = held(client, before, received)
            before.print("j", "stdout", 0, b"one ")
            eventually(lambda: received == ["one "])
            jobs = before.jobs
        jobs["j"].watchers.clear()
        with FakeDaemon(tmp_path / "s", jobs=jobs) as after:
            eventually(lambda: after.jobs["j"].watchers)
            assert all(each.stream for each in after.of(wire.Watch))
            after.print("j", "stdout", 0, b"one two ")
            eventually(lambda: "".join(received) == "one two ")
            after.finish("j", value=5, output=(b"one two three", b""))
            assert running.end().value == 5
        assert "".join(received) == "one two three"


# ---- text ----


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_text_that_is_split_anywhere_is_decoded_as_if_it_were_whole(data, cuts):
    reader, edges = OutputReader(), sorted({0, *(min(cut, len(data)) for cut in cuts)})
    request = _answered(data, b"." * len(edges))
    for at, (start, end) in enumerate(pairwise(edges)):
        reader.put(wire.Output(job_id="j", name="stdout", offset=start), [data[start:end]])
        reader.put(wire.Output(job_id="j", name="stderr", offset=at), [b"."])  # or the pieces would come as one
    reader.end(request)
    *events, result = reader.events(request, None, to_result)
    output = [each for each in events if each.stream == "stdout"]
    assert text_of(output) == result.stdout == data.decode(errors="replace")
    for event in output:
        assert text_of(output[: output.index(event)]) == data[: event.offset].decode(errors="replace")


def _answered(stdout, stderr=b""):
    answer = Future()
    answer.set_result(Delivery(wire.Result(job_id="j", outcome=Outcome.OK), (stdout, stderr, b"")))
    return answer


def test_an_output_reader_that_nobody_reads_holds_no_more_than_the_output_cap():
    reader = OutputReader()
    for _ in range(1000):
        reader.put(wire.Output(job_id="j", name="stdout", offset=0), [b"x" * 1000])
    assert reader._queue.qsize() == 1
