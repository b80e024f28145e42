"""The daemon end to end, with workers that are plain processes: the same runner, link, core and client as in containers."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pool.errors import PoolUnavailableError, UnknownJobError, UnknownPoolError
from pool.model import Limits, Outcome
from pool.testing import start_of
from tests.support.daemons import DaemonProcess, module_daemon, pool_of
from tests.support.process import python

SMALL = pool_of(2, 3, limits={"wall_s": 100, "cpu_s": 20, "memory": "256m", "output": "64k", "result": "1m"})


daemon = module_daemon({"default": SMALL, "single": SMALL | {"recycle": {"max_jobs": 1}}})


pytestmark = pytest.mark.usefixtures("next_job_is_served")


def test_a_function_is_called_and_its_value_comes_back(client):
    result = client.run("def main(x, *, y):\n    return {'sum': x + y}", entry="main", args=[40], kwargs={"y": 2})
    assert result.outcome is Outcome.OK, result
    assert result.value == {"sum": 42}
    assert result.worker.startswith("default-")


def test_a_script_runs_as_main_and_code_with_an_entry_does_not(client):
    assert client.run("result = __name__").value == "__main__"
    assert client.run("seen = __name__\ndef main(): return seen", entry="main").value == "job"


def test_a_callable_is_run_in_the_sandbox(client):
    offset = 7

    def shifted(x):
        return x + offset, os.getpid()

    value, pid = client.run(shifted, args=[1]).value
    assert value == 8
    assert pid != os.getpid()


def test_output_is_captured_apart(client):
    result = client.run("import sys\nprint('out')\nprint('err', file=sys.stderr)")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert (result.stdout_bytes, result.truncated) == (4, ())


def test_a_syntax_error_ends_error_with_its_line(client):
    result = client.run("x = 1\ndef broken(:\n")
    assert (result.outcome, result.error.type) == (Outcome.ERROR, "SyntaxError")
    assert "line 2" in result.error.traceback


def test_a_job_past_its_wall_limit_is_killed_with_all_it_started(client):
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    began = time.monotonic()
    result = client.run(code, limits=Limits(wall_s=5))
    assert result.outcome is Outcome.TIMEOUT
    assert "5 s" in result.reason
    assert time.monotonic() - began < 50
    assert not start_of(int(result.stdout))


def test_with_max_jobs_1_no_worker_sees_a_second_job(daemon, client):
    containers = [client.run("result = 1", pool="single").container for _ in range(6)]
    assert len(set(containers)) == 6


def test_hundreds_of_jobs_leave_every_worker_clean(daemon, client):
    before = daemon.pool()["recycles"]
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda n: client.run("result = 1").outcome, range(300))) == {Outcome.OK}
    after = daemon.pool()["recycles"]
    bad = {reason: after.get(reason, 0) - before.get(reason, 0) for reason in ("dirty", "vanished", "start_failed")}
    assert not any(bad.values()), (bad, daemon.words())


def test_any_process_may_ask_for_a_result_by_its_id(daemon, client):
    job_id = client.submit("result = 'kept'")
    with daemon.client() as other:
        assert other.result(job_id, timeout=120).value == "kept"
        assert other.result(job_id, timeout=120).value == "kept"


def test_a_killed_worker_is_noticed_its_job_is_lost_and_it_is_replaced(daemon, client):
    job_id = client.submit("import time; time.sleep(60)")
    daemon.until(lambda: "running" in {entry["state"] for entry in daemon.call("history", id=job_id)["entries"]})
    victim = daemon.worker_of(job_id)
    began = time.monotonic()
    time.sleep(0.5)
    ran_s = time.monotonic() - began
    os.kill(daemon.pid_of(victim), signal.SIGKILL)
    result = client.result(job_id, timeout=120)
    assert (result.outcome, result.worker) == (Outcome.LOST, victim["id"])
    assert "unknown" in result.reason
    assert result.timings.run_ms >= 1000 * ran_s  # it had begun, and that time was the job's
    daemon.until(lambda: victim["id"] not in {each["id"] for each in daemon.workers()})
    daemon.until(lambda: len(daemon.workers(state="idle")) >= 2)


def test_an_idle_worker_that_is_killed_is_replaced(daemon, client):
    daemon.until(lambda: len(daemon.workers(state="idle")) >= 2)
    victim = daemon.workers(state="idle")[0]
    os.kill(daemon.pid_of(victim), signal.SIGKILL)
    daemon.until(lambda: victim["id"] not in {each["id"] for each in daemon.workers()})
    daemon.until(lambda: len(daemon.workers(state="idle")) >= 2)


def test_a_frozen_worker_is_replaced_without_a_job_and_with_one(daemon, client):
    daemon.until(lambda: len(daemon.workers(state="idle")) >= 2)
    before = daemon.pool()["recycles"].get("frozen", 0)
    idle = daemon.workers(state="idle")[0]
    os.kill(daemon.pid_of(idle), signal.SIGSTOP)
    daemon.until(lambda: idle["id"] not in {each["id"] for each in daemon.workers()})
    job_id = client.submit("import time; time.sleep(600)")
    busy = daemon.worker_of(job_id)
    os.kill(daemon.pid_of(busy), signal.SIGSTOP)
    result = client.result(job_id, timeout=120)
    assert (result.outcome, result.worker) == (Outcome.LOST, busy["id"])
    assert "was stopped by a signal" in result.reason
    assert daemon.pool()["recycles"]["frozen"] == before + 2
    daemon.until(lambda: len(daemon.workers(state="idle")) >= 2)


# ---- bad input ----


def test_an_unknown_pool_is_named_with_those_there_are(client):
    with pytest.raises(UnknownPoolError, match="default, single"):
        client.run("result = 1", pool="nowhere")


def test_an_unknown_job_is_said_to_be_unknown(client):
    with pytest.raises(UnknownJobError, match="no-such-job"):
        client.result("no-such-job", timeout=5)
    with pytest.raises(UnknownJobError):
        client.cancel("no-such-job")


# ---- operation ----


def test_the_history_of_a_job_shows_its_steps_while_it_runs_and_after_its_end(daemon, client):
    client.submit("import time; time.sleep(60)", job_id="shown")
    steps = [
        ("queued", f"accepted from uid {os.getuid()}"),
        ("leased", "leased by default-"),
        ("running", "started by default-"),
    ]
    daemon.until(lambda: len(daemon.call("history", id="shown")["entries"]) == len(steps))
    client.cancel("shown")
    assert client.result("shown", timeout=120).outcome == "cancelled"
    steps += [("running", "cancelled; default-"), ("done", "cancelled, reported by the worker")]
    history = daemon.call("history", id="shown")
    assert history["pool"] == "default"
    for (state, text), entry in zip(steps, history["entries"], strict=True):
        assert entry["state"] == state
        assert entry["what"].startswith(text)


def test_a_second_daemon_on_the_same_directories_is_refused(daemon):
    path = daemon.home / "pool.yaml"
    second = python("-m", "pool.testing", "--config", str(path))
    assert second.returncode != 0
    assert "already uses" in second.stderr + second.stdout


def test_a_worker_of_other_sources_is_refused_with_the_command_that_mends_it():
    with DaemonProcess({"default": SMALL}, engine="stale", wait_ready=False) as running:
        running.until(lambda: running.pool()["breaker"]["open"])
        assert "pool-admin image build" in running.pool()["breaker"]["last_reason"]
        with running.client() as client, pytest.raises(PoolUnavailableError, match="image build"):
            client.run("result = 1")


def test_a_preload_that_does_not_import_opens_the_breaker_with_a_remedy():
    home = DaemonProcess({"default": SMALL | {"preload": {"modules": ["no_such_module"]}}}, wait_ready=False)
    with home as running:
        running.until(lambda: running.pool()["breaker"]["open"])
        assert "no_such_module" in running.pool()["breaker"]["last_reason"]


def test_sigterm_lets_a_running_job_finish_and_then_ends_with_status_0():
    with DaemonProcess({"default": SMALL}) as running, running.client() as client, ThreadPoolExecutor(1) as thread:
        answer = thread.submit(client.run, "import time; time.sleep(1); result = 'finished'")
        running.until(lambda: running.pool()["running"] == 1)
        assert running.stop() == 0
        assert answer.result(120).value == "finished"
