"""When SandboxExecutor falls back: the decision, and every failure of a pool, with the fake daemon."""

import logging

import pytest

from pool import Client, JobResult, Outcome, SandboxExecutor, errors, wire
from pool.client.fallback import LocalFallback
from pool.client.routing import RouteCounter, falls_back
from tests.support.waiting import eventually
from tests.unit.fake_daemon import FakeDaemon

DOUBLE = "def main(x):\n    return x * 2"


def ended(outcome, worker="w1", attempt=1):
    return JobResult(job_id="j", outcome=outcome, worker=worker, attempt=attempt)


# ---- the decision ----


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.LOST])
def test_a_job_that_ended_never_falls_back(outcome, idempotent):
    assert not falls_back(ended(outcome), sent=False, idempotent=idempotent)


@pytest.mark.parametrize(
    "error", [errors.InvalidJobError(), errors.PoisonedCodeError(), errors.ClosedError(), errors.VersionMismatchError()]
)
def test_what_is_refused_or_not_understood_never_falls_back(error):
    assert not falls_back(error, sent=False, idempotent=True)


@pytest.mark.parametrize(
    "error", [errors.BacklogFullError(), errors.PoolUnavailableError(), errors.DaemonUnreachableError()]
)
def test_a_job_that_the_pool_did_not_take_falls_back(error):
    assert falls_back(error, sent=False, idempotent=False)


def test_a_job_that_only_waited_falls_back():
    assert falls_back(ended(Outcome.TIMEOUT, None, 0), sent=False, idempotent=False)


@pytest.mark.parametrize("end", [ended(Outcome.LOST), errors.UnknownJobError(), errors.DaemonUnreachableError()])
def test_what_may_have_run_falls_back_only_if_it_is_idempotent(end):
    assert not falls_back(end, sent=True, idempotent=False)
    assert falls_back(end, sent=True, idempotent=True)


# ---- the executor, with a local engine that only notes what it is asked ----


@pytest.fixture
def local(monkeypatch):
    """The calls that the local engine would have run."""
    asked = []

    def run(_self, code, _options):
        asked.append(code)
        return JobResult(job_id="l", outcome=Outcome.OK, value="local", worker="local", attempt=1)

    monkeypatch.setattr(LocalFallback, "run", run)
    return asked


def test_without_a_daemon_it_runs_locally_and_the_result_says_why(tmp_path, local):
    with SandboxExecutor(tmp_path / "s", wait_s=0.1, fallback="local") as sandbox:
        result = sandbox.execute(DOUBLE, [4])
        assert (result.success, result.value, result.route, result.job.fallback) == (True, "local", "fallback", True)
        assert "Start pool-daemon" in result.reasons[0]
        assert result.reasons[-1] == "it ran in the local engine"
        stats = sandbox.stats()
    assert (stats.pool, stats.fallback, stats.none, stats.total) == (0, 1, 0, 1)
    assert (stats.fallback_rate, stats.causes) == (1.0, {"unreachable": 1})
    assert local == [DOUBLE]


def test_a_pool_that_is_there_is_used(daemon, local):
    with SandboxExecutor(daemon.endpoint, wait_s=60, fallback="local") as sandbox:
        assert sandbox.execute(DOUBLE, [4]).route == "pool"
        assert (sandbox.stats().pool, sandbox.stats().fallback_rate) == (1, 0.0)
    assert not local


@pytest.mark.parametrize("code", ["backlog_full", "draining", "pool_unavailable", "storage_full"])
def test_a_pool_that_stays_busy_past_the_wait_is_replaced(daemon, local, code):
    daemon.on(wire.Submit, lambda call: call.refuse(code, "not now", retry_after_s=0.05))
    with SandboxExecutor(daemon.endpoint, wait_s=0.3, fallback="local") as sandbox:
        result = sandbox.execute(DOUBLE, [4])
        assert (result.route, result.reasons[0]) == ("fallback", "not now")
        assert sandbox.stats().causes == {code: 1}


def test_while_the_pool_is_down_programs_do_not_wait_and_when_it_is_back_they_use_it(tmp_path, local):
    with SandboxExecutor(tmp_path / "s", wait_s=0.3, fallback="local") as sandbox:
        assert sandbox.execute(DOUBLE, [4]).route == "fallback"
        assert sandbox._down
        with FakeDaemon(tmp_path / "s"):
            eventually(lambda: sandbox.execute(DOUBLE, [4]).route == "pool")
        assert not sandbox._down


@pytest.mark.parametrize(("idempotent", "route"), [(True, "fallback"), (False, "pool")])
def test_a_lost_program_falls_back_only_if_it_is_idempotent(daemon, local, idempotent, route):
    def react(call):
        call.answer(wire.Accepted(request=call.message.request, job_id=call.message.job_id))
        lost = wire.Result(
            job_id=call.message.job_id, outcome=Outcome.LOST, reason="its worker vanished", worker="w", attempt=1
        )
        call.answer(lost, [b"", b"", b""])

    daemon.on(wire.Submit, react)
    with SandboxExecutor(daemon.endpoint, wait_s=60, fallback="local") as sandbox:
        result = sandbox.execute(DOUBLE, [4], idempotent=idempotent)
    assert (result.route, len(local)) == (route, int(idempotent))
    assert "its worker vanished" in (result.reasons[0] if idempotent else result.error)


@pytest.mark.parametrize(("idempotent", "route"), [(True, "fallback"), (False, "none")])
def test_a_program_that_a_silent_daemon_may_have_is_not_run_twice(daemon, local, idempotent, route):
    daemon.on(wire.Submit, lambda call: None)
    daemon.on(wire.Ping, lambda call: None)
    daemon.on(wire.Watch, lambda call: call.refuse("unknown_job", "there is no such job"))
    with (
        Client(daemon.endpoint, timeout=0.5) as client,
        SandboxExecutor(client=client, wait_s=3, fallback="local") as sandbox,
    ):
        result = sandbox.execute(DOUBLE, [4], idempotent=idempotent)
    assert (result.route, len(local)) == (route, int(idempotent)), result


def test_a_failure_of_its_own_stays_in_the_pool(daemon, local):
    with SandboxExecutor(daemon.endpoint, wait_s=60, fallback="local") as sandbox:
        result = sandbox.execute("def main(): return 1 / 0")
        assert (result.route != "fallback", result.outcome) == (True, Outcome.ERROR)
        refused = sandbox.execute(DOUBLE, [object()])
        assert (refused.route, refused.outcome) == ("none", Outcome.REJECTED)
    assert not local


def test_a_host_that_cannot_lock_it_down_runs_nothing(tmp_path, monkeypatch):
    def run(*_):
        raise errors.NoLockdownError("this host refuses a part of the lockdown: landlock")

    monkeypatch.setattr(LocalFallback, "run", run)
    with SandboxExecutor(tmp_path / "s", wait_s=0.1, fallback="local") as sandbox:
        result = sandbox.execute(DOUBLE, [4])
        assert (result.success, result.route, result.outcome) == (False, "none", None)
        assert "landlock" in result.error
        assert (len(result.reasons), sandbox.stats().none) == (2, 1)


def test_a_disabled_sandbox_does_not_ask_the_pool(daemon, local, monkeypatch):
    monkeypatch.setenv("SANDBOX_ENABLED", "false")
    monkeypatch.setenv("SANDBOX_FALLBACK", "local")
    with SandboxExecutor(daemon.endpoint) as sandbox:
        assert sandbox.execute(DOUBLE, [4]).route == "fallback"
    with SandboxExecutor(daemon.endpoint, fallback="refuse") as sandbox:
        result = sandbox.execute(DOUBLE, [4])
    assert (result.success, result.route, len(local)) == (False, "none", 1)
    assert "the sandbox is disabled" in result.error
    assert not daemon.received


@pytest.mark.parametrize("given", [{"fallback": "none"}, {"SANDBOX_FALLBACK": "bare"}, {"SANDBOX_ENABLED": "maybe"}])
def test_a_word_that_means_nothing_is_refused(given, monkeypatch):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    options = {name: value for name, value in given.items() if name.islower()}
    with pytest.raises(errors.ConfigError, match="allowed"):
        SandboxExecutor("/tmp/s", **options)


def test_a_warning_is_logged_once_when_the_rate_comes_over_the_threshold(caplog):
    counter = RouteCounter(0.1)
    with caplog.at_level(logging.WARNING, logger="pool.sandbox"):
        for _ in range(30):
            counter.add("pool")
        for _ in range(3):
            counter.add("fallback", "unreachable")
        assert not caplog.records
        for _ in range(3):
            counter.add("fallback", "unreachable")
    (record,) = caplog.records
    assert "in the local engine" in record.getMessage()
    assert "unreachable" in record.getMessage()
    assert counter.stats().fallback_rate == 6 / 36
