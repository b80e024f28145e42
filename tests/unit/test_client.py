"""Client: run, submit, result, cancel, and the names and endpoints of the package."""

import os
import signal
import sys
import textwrap
import threading

import pytest

import pool
from pool import Client, Limits, Outcome, errors, wire
from pool.client import waiting
from pool.client.endpoint import submit_endpoint
from pool.errors import BacklogFullError, ConfigError, ResultTimeoutError, UnknownJobError
from tests.support.process import python
from tests.support.waiting import eventually
from tests.unit.fake_daemon import HOLD

DOUBLE = "def main(x):\n    return x * 2"


def double(x):
    return x * 2


# ---- run, submit, result, cancel ----


def test_run_calls_the_entry_with_the_arguments_and_gives_its_value(client):
    result = client.run(DOUBLE, entry="main", args=[21])
    assert (result.outcome, result.value, result.ok) == (Outcome.OK, 42, True)


def test_run_of_a_script_gives_its_variable_result(client):
    assert client.run("result = 6 * 7").value == 42


def test_run_of_a_callable_pickles_it_into_the_sandbox(client, daemon):
    assert client.run(double, kwargs={"x": 4}).value == 8
    submit = daemon.of(wire.Submit)[0]
    assert submit.pickled
    assert submit.python == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_every_option_of_a_job_reaches_the_daemon(client, daemon):
    same = {"env": {"LANG": "C"}, "seed": 7, "pool": "big", "priority": -3, "job_id": "my-job"}
    files = {"a.txt": b"A", "b.bin": bytearray(b"\0")}
    limits = Limits(wall_s=2, memory="1m")
    client.run("x = 1", stdin="grüß", files=files, limits=limits, queue_timeout=1.5, on_disconnect="keep", **same)
    submit = daemon.of(wire.Submit)[0]
    assert submit == wire.Submit(
        request=submit.request, files=("a.txt", "b.bin"), limits=wire.JobLimits(wall_s=2, memory=1 << 20),
        queue_timeout_s=1.5, watch=True, **same,
    )  # fmt: skip
    assert daemon.payloads[daemon.received.index(submit)] == (b"x = 1", "grüß".encode(), b"A", b"\0")


def test_jobs_of_calls_that_wait_end_with_their_client_and_submitted_jobs_do_not(client, daemon):
    client.run("", job_id="run")
    list(client.map("def main(n): return n", [[1]], entry="main"))
    client.submit("", job_id="submit")
    client.submit_many([{"code": "", "job_id": "many"}, {"code": "", "job_id": "own", "on_disconnect": "cancel"}])
    session = client.connection.io[os.getpid()].session
    asked = {submit.job_id: submit.session for submit in daemon.of(wire.Submit)}
    kept = {job_id: asked.pop(job_id) for job_id in ("submit", "many")}
    assert kept == {"submit": None, "many": None}
    assert set(asked.values()) == {session}
    assert {ping.session for ping in daemon.of(wire.Ping)} == {session}


def test_a_client_may_decide_for_all_its_jobs_and_a_job_for_itself(daemon):
    with Client(daemon.endpoint, on_disconnect="keep") as client:
        client.run("")
        client.run("", on_disconnect="cancel")
    with Client(daemon.endpoint, on_disconnect="cancel") as client:
        client.submit("")
    assert [submit.session is None for submit in daemon.of(wire.Submit)] == [True, False, False]


@pytest.mark.parametrize("word", ["stay", "", True])
def test_another_word_for_on_disconnect_is_refused(daemon, word):
    with pytest.raises(errors.InvalidJobError, match="give 'cancel' or 'keep'"):
        Client(daemon.endpoint, on_disconnect=word)
    with Client(daemon.endpoint) as client, pytest.raises(errors.InvalidJobError, match="on_disconnect"):
        client.submit("", on_disconnect=word)


def test_many_jobs_are_cancelled_together_and_ids_that_nobody_knows_are_passed_over(client, daemon):
    batch = client.submit_many({"code": HOLD} for _ in range(3))
    client.cancel([*batch, "unknown"])
    assert {str(result.outcome) for result in client.results(batch)} == {"cancelled"}


def test_the_clients_pool_is_the_default_of_its_jobs(daemon):
    with Client(daemon.endpoint, pool="mine") as client:
        client.run("")
        client.run("", pool="theirs")
    assert [submit.pool for submit in daemon.of(wire.Submit)] == ["mine", "theirs"]


def test_a_job_that_raises_is_a_result_and_not_an_exception(client):
    result = client.run("raise ValueError('bad')")
    assert result.outcome is Outcome.ERROR
    assert (result.error.type, result.error.message) == ("ValueError", "bad")
    assert not result.ok


def test_any_client_can_ask_for_a_submitted_job_by_its_id(client, daemon):
    job_id = client.submit(DOUBLE, entry="main", args=[1])
    assert len(job_id) == 32
    with Client(daemon.endpoint) as other:
        assert other.result(job_id).value == 2
        assert other.result(job_id, timeout=60).value == 2


def test_the_same_job_id_again_is_the_same_job(client):
    assert client.submit("result = 1", job_id="once") == "once"
    assert client.run("result = 2", job_id="once").value == 1


def test_waiting_for_a_result_ends_after_the_timeout_and_the_job_goes_on(client, daemon):
    job_id = client.submit(HOLD)
    with pytest.raises(ResultTimeoutError, match=job_id):
        client.result(job_id, timeout=0.05)
    daemon.finish(job_id, value="late")
    assert client.result(job_id, timeout=60).value == "late"


def test_run_gives_up_waiting_after_its_timeout_and_the_job_goes_on(client, daemon):
    with pytest.raises(ResultTimeoutError, match="goes on") as caught:
        client.run(HOLD, timeout=0.05)
    daemon.finish(caught.value.fields["job_id"], value=1)
    assert client.result(caught.value.fields["job_id"], timeout=60).value == 1
    assert not daemon.of(wire.Cancel)


def test_a_timeout_of_zero_does_not_wait(client):
    job_id = client.submit(HOLD)
    with pytest.raises(ResultTimeoutError):
        client.result(job_id, timeout=0)


def test_a_cancelled_job_ends_cancelled(client):
    job_id = client.submit(HOLD)
    client.cancel(job_id)
    assert client.result(job_id, timeout=60).outcome is Outcome.CANCELLED
    client.cancel(job_id)


def test_an_unknown_job_id_is_an_error_of_its_own(client):
    for ask in (client.result, client.cancel):
        with pytest.raises(UnknownJobError):
            ask("nobody")


def test_a_refusal_is_raised_as_the_error_that_the_daemon_named(client, daemon):
    daemon.on(wire.Submit, lambda call: call.refuse("backlog_full", "8 jobs wait", retry_after_s=0.5))
    for ask in (client.run, client.submit):
        with pytest.raises(BacklogFullError, match="8 jobs wait") as caught:
            ask("x = 1")
        assert caught.value.fields == {"retry_after_s": 0.5}


def full_for(daemon, refusals, *, retry_after_s=0.01):
    """The daemon's backlog is full for so many submissions."""
    left = iter(range(refusals))

    def react(call):
        if next(left, None) is None:
            call.proceed()
        else:
            call.refuse("backlog_full", "8 jobs wait", retry_after_s=retry_after_s)

    daemon.on(wire.Submit, react)


def test_a_run_with_a_timeout_waits_for_a_place_in_the_backlog(client, daemon):
    full_for(daemon, 3)
    assert client.run("result = 1", timeout=60).value == 1
    assert len({submit.job_id for submit in daemon.of(wire.Submit)}) == 1
    full_for(daemon, 2)
    assert client.run("result = 2", timeout=60, on_stdout=print).value == 2


def test_a_run_gives_up_when_the_backlog_stays_full_for_its_timeout(client, daemon):
    full_for(daemon, 10**6, retry_after_s=1.0)
    with pytest.raises(BacklogFullError, match="8 jobs wait"):
        client.run("result = 1", timeout=4)
    assert len(daemon.of(wire.Submit)) >= 2


def test_clients_that_were_refused_together_try_again_at_different_times():
    pauses = {waiting.Patience(60).pause_s(BacklogFullError("full", retry_after_s=1.0)) for _ in range(20)}
    assert len(pauses) > 10
    assert all(1.0 <= each <= 1.5 for each in pauses)


def test_a_refusal_whose_fields_are_named_like_parameters_is_still_raised(client, daemon):
    fields = {"message": "x", "self": 1}
    daemon.on(
        wire.Submit,
        lambda call: call.answer(wire.Refused(request=call.message.request, code="busy", message="no", fields=fields)),
    )
    with pytest.raises(errors.BusyError, match="no"):
        client.run("x = 1")


def test_a_refusal_with_an_unknown_code_is_a_pool_error_that_names_it(client, daemon):
    daemon.on(wire.Submit, lambda call: call.refuse("eclipse", "dark"))
    with pytest.raises(errors.PoolError, match="eclipse: dark"):
        client.run("x = 1")


def test_an_interrupted_run_cancels_its_job(client, daemon):
    def interrupt():
        eventually(lambda: daemon.jobs)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        client.run(HOLD)
    (job,) = daemon.jobs.values()
    assert client.result(job.job_id, timeout=60).outcome is Outcome.CANCELLED


@pytest.mark.parametrize("timeout", [None, 3600])
def test_a_timeout_error_of_a_signal_handler_is_raised_and_cancels_the_job(client, daemon, timeout):
    def ring(*_):
        raise TimeoutError("alarm")

    def interrupt():
        eventually(lambda: daemon.jobs)
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, ring)
    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(TimeoutError, match="alarm"):
            client.run(HOLD, timeout=timeout)
    finally:
        signal.signal(signal.SIGALRM, before)
    daemon.wait_for(wire.Cancel)


# ---- names and addresses ----


def test_the_public_names_exist_and_importing_the_package_loads_no_library():
    program = """
        import sys, pool
        heavy = {"zmq", "msgspec", "cloudpickle", "numpy", "docker", "concurrent.futures"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        for name in pool.__all__:
            assert getattr(pool, name) is not None
        assert set(pool.__all__) <= set(dir(pool))
        assert not {"docker", "numpy", "cloudpickle"} & set(sys.modules)
    """
    done = python("-c", textwrap.dedent(program))
    assert done.returncode == 0, done.stderr


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="AsyncThing"):
        _ = pool.AsyncThing


@pytest.mark.parametrize(
    ("given", "environment", "endpoint"),
    [
        ("ipc:///a/b", {"POOL_ENDPOINT": "/e"}, "ipc:///a/b"),
        ("/a/b", {}, "ipc:///a/b"),
        (None, {"POOL_ENDPOINT": "/e", "POOL_RUN_DIR": "/r"}, "ipc:///e"),
        (None, {"POOL_RUN_DIR": "/r"}, "ipc:///r/submit.sock"),
        (None, {"POOL_ENDPOINT": ""}, "ipc:///run/pool/submit.sock"),
    ],
)
def test_the_endpoint_is_the_argument_or_the_environment_or_the_default(monkeypatch, given, environment, endpoint):
    for name in ("POOL_ENDPOINT", "POOL_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert submit_endpoint(given) == endpoint


@pytest.mark.parametrize("scheme", ["", "ipc://"])
@pytest.mark.parametrize("named", ["", "/", "/admin.sock"])
def test_jobs_go_to_the_submit_socket_of_a_run_directory(monkeypatch, tmp_path, scheme, named):
    assert submit_endpoint(f"{scheme}{tmp_path}{named}") == f"ipc://{tmp_path}/submit.sock"
    monkeypatch.setenv("POOL_ENDPOINT", f"{scheme}{tmp_path}{named}")
    assert submit_endpoint() == f"ipc://{tmp_path}/submit.sock"


@pytest.mark.parametrize("given", ["tcp://127.0.0.1:1", "", "ipc://", 5, b"/x", "/a\0b", "/" + "x" * 107])
def test_an_endpoint_that_cannot_work_is_refused_at_once(given):
    with pytest.raises(ConfigError, match="endpoint"):
        Client(given)


def test_a_run_directory_whose_socket_path_would_be_too_long_is_named(monkeypatch):
    monkeypatch.delenv("POOL_ENDPOINT", raising=False)
    monkeypatch.setenv("POOL_RUN_DIR", "/tmp/" + "d" * 100)
    with pytest.raises(ConfigError, match=r"POOL_RUN_DIR.*117 bytes, 107 fit"):
        Client()


def test_a_path_is_no_code_and_the_refusal_says_how_to_read_it(tmp_path):
    with (
        Client(tmp_path / "s") as client,
        pytest.raises(errors.InvalidJobError, match=r"path\.read_text"),
    ):
        client.run(tmp_path / "strategy.py")
