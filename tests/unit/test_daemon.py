"""The daemon end to end, with workers that are plain processes: the same runner, link, core and client as in containers."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from pool import wire
from pool.errors import (
    DaemonUnreachableError,
    DrainingError,
    InvalidJobError,
    LimitExceededError,
    PoolUnavailableError,
    TooLargeError,
    UnknownJobError,
    UnknownPoolError,
    ValueCodecError,
    VersionMismatchError,
)
from pool.model import Limits, Outcome
from tests.support.daemons import DaemonProcess
from tests.support.process import python

SMALL = {
    "size": {"min": 2, "max": 3},
    "preload": {"modules": []},
    "limits": {"wall_s": 20, "cpu_s": 20, "memory": "256m", "output": "64k", "result": "1m"},
}


@pytest.fixture(scope="module")
def daemon():
    patient = SMALL | {"limits": SMALL["limits"] | {"wall_s": 600}}
    with DaemonProcess({"default": SMALL, "single": patient | {"recycle": {"max_jobs": 1}}}) as running:
        yield running


@pytest.fixture(autouse=True)
def next_job_is_served(request):
    """Whatever a test has done to it, the daemon serves the next job."""
    client = request.getfixturevalue("client") if "client" in request.fixturenames else None
    yield
    if client is not None:
        assert client.run("result = 6 * 7").value == 42


def test_a_function_is_called_and_its_value_comes_back(client):
    result = client.run("def main(x, *, y):\n    return {'sum': x + y}", entry="main", args=[40], kwargs={"y": 2})
    assert result.outcome is Outcome.OK, result
    assert result.value == {"sum": 42}
    assert result.worker.startswith("default-")


def test_a_script_gives_the_variable_result(client):
    assert client.run("result = [1, 2.5, 'x', None, (1, 2)]").value == [1, 2.5, "x", None, (1, 2)]


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


def test_a_coroutine_is_run_to_its_end(client):
    code = "import asyncio\nasync def main():\n    await asyncio.sleep(0.01)\n    return 'done'"
    assert client.run(code, entry="main").value == "done"


def test_output_is_captured_apart(client):
    result = client.run("import sys\nprint('out')\nprint('err', file=sys.stderr)")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert (result.stdout_bytes, result.truncated) == (4, ())


def test_output_over_its_cap_is_cut_and_counted(client):
    result = client.run("print('x' * 10_000_000)", limits=Limits(output=1000))
    assert result.outcome is Outcome.OK
    assert (len(result.stdout), result.stdout_bytes, result.truncated) == (1000, 10_000_001, ("stdout",))


def test_stdin_files_and_seed_reach_the_job(client):
    code = "import sys, random\nresult = sys.stdin.read(), open('in.bin', 'rb').read(), random.random()"
    once = client.run(code, stdin="text\n", files={"in.bin": b"\0\1"}, seed=5)
    again = client.run(code, stdin="text\n", files={"in.bin": b"\0\1"}, seed=5)
    assert once.value[:2] == ("text\n", b"\0\1")
    assert once.value == again.value


def test_two_jobs_without_a_seed_draw_different_numbers(client):
    code = "import random\nresult = random.random()"
    assert client.run(code).value != client.run(code).value


def test_a_syntax_error_ends_error_with_its_line(client):
    result = client.run("x = 1\ndef broken(:\n")
    assert (result.outcome, result.error.type) == (Outcome.ERROR, "SyntaxError")
    assert "line 2" in result.error.traceback


def test_an_exception_comes_with_the_jobs_own_lines_and_none_of_the_runners(client):
    result = client.run("def main():\n    x = 0\n    raise ValueError(f'{x} shares')\n", entry="main")
    assert (result.outcome, result.error.type, result.error.message) == (Outcome.ERROR, "ValueError", "0 shares")
    assert "raise ValueError(f'{x} shares')" in result.error.traceback
    assert "execution.py" not in result.error.traceback


def test_an_entry_that_does_not_exist_is_named_with_those_that_do(client):
    result = client.run("def run(): pass", entry="main")
    assert result.outcome is Outcome.ERROR
    assert "'main'" in result.error.message
    assert "run" in result.error.message


def test_a_result_that_cannot_be_carried_names_its_type_and_path(client):
    result = client.run("result = {'a': [1, lambda: 0]}")
    assert result.outcome is Outcome.ERROR
    assert "function" in result.error.message
    assert "['a'][1]" in result.error.message


def test_a_result_over_its_cap_ends_output(client):
    result = client.run("result = b'x' * 2_000_000")
    assert result.outcome is Outcome.OUTPUT, result
    assert "1048576" in result.reason


def test_a_job_past_its_wall_limit_is_killed_with_all_it_started(client):
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    began = time.monotonic()
    result = client.run(code, limits=Limits(wall_s=1))
    assert result.outcome is Outcome.TIMEOUT
    assert "1 s" in result.reason
    assert time.monotonic() - began < 50
    assert not os.path.exists(f"/proc/{int(result.stdout)}/cmdline") or _is_zombie(int(result.stdout))


def _is_zombie(pid):
    with open(f"/proc/{pid}/stat") as text:
        return text.read().rpartition(")")[2].split()[0] == "Z"


def test_a_job_over_its_cpu_limit_ends_timeout(client):
    result = client.run("while True: pass", limits=Limits(cpu_s=1), pool="single")  # a busy machine gives it little
    assert result.outcome is Outcome.TIMEOUT
    assert "CPU" in result.reason


def test_a_job_over_its_memory_ends_memory(client):
    result = client.run("x = bytearray(200_000_000)", limits=Limits(memory="64m"))
    assert result.outcome is Outcome.MEMORY, result


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("import os; os._exit(0)", Outcome.CRASH),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", Outcome.CRASH),
        ("import sys; sys.exit()", Outcome.OK),
        ("import sys; sys.exit(3)", Outcome.ERROR),
        ("raise KeyboardInterrupt", Outcome.ERROR),
        ("import sys; sys.stdout.close(); sys.stderr.close(); result = 1", Outcome.OK),
        ("import os; os.close(1); os.close(2); result = 1", Outcome.OK),
        ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E", Outcome.ERROR),
        ("import sys; sys.stdout = None; result = 1", Outcome.OK),
        ("def f(): f()\nf()", Outcome.ERROR),
    ],
)
def test_every_way_out_has_its_one_outcome(client, code, outcome):
    assert client.run(code).outcome is outcome


def test_a_job_leaves_no_file_to_the_next_one(client):
    listed = "import os; result = sorted(os.listdir('.'))"
    assert client.run(f"open('left', 'w').write('x'); {listed}").value == ["left", "out"]
    assert client.run(listed).value == ["out"]


def test_with_max_jobs_1_no_worker_sees_a_second_job(daemon, client):
    containers = [client.run("result = 1", pool="single").container for _ in range(6)]
    assert len(set(containers)) == 6


def test_many_threads_share_a_client_and_each_gets_its_own_answer(client):
    with ThreadPoolExecutor(8) as threads:
        values = threads.map(lambda n: client.run("def main(n): return n * n", entry="main", args=[n]).value, range(60))
        assert list(values) == [n * n for n in range(60)]


def test_hundreds_of_jobs_leave_every_worker_clean(daemon, client):
    before = daemon.pool()["recycles"]
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda n: client.run("result = 1").outcome, range(300))) == {Outcome.OK}
    after = daemon.pool()["recycles"]
    bad = {reason: after.get(reason, 0) - before.get(reason, 0) for reason in ("dirty", "vanished", "start_failed")}
    assert not any(bad.values()), (bad, daemon.words())


def test_timings_add_up_and_agree_with_the_wall_clock(client):
    began = time.monotonic()
    result = client.run("import time; time.sleep(0.3)")
    wall_ms = (time.monotonic() - began) * 1000
    parts = result.timings
    assert parts.queue_ms + parts.dispatch_ms + parts.run_ms + parts.collect_ms == pytest.approx(
        parts.total_ms, abs=0.01
    )
    assert 300 <= parts.run_ms <= parts.total_ms <= wall_ms
    assert wall_ms - parts.total_ms < 20_000


def test_any_process_may_ask_for_a_result_by_its_id(daemon, client):
    job_id = client.submit("result = 'kept'")
    with daemon.client() as other:
        assert other.result(job_id, timeout=20).value == "kept"
        assert other.result(job_id, timeout=20).value == "kept"


def test_the_same_id_is_the_same_job_and_another_body_is_refused(client):
    code = "import time; result = time.monotonic_ns()"
    first = client.run(code, job_id="once")
    assert client.run(code, job_id="once").value == first.value
    with pytest.raises(InvalidJobError, match="already used"):
        client.run("result = 0", job_id="once")


def test_a_running_job_is_cancelled_and_killed(daemon, client):
    job_id = client.submit("import time; time.sleep(60)")
    daemon.until(lambda: daemon.pool()["running"] == 1)
    client.cancel(job_id)
    assert client.result(job_id, timeout=20).outcome is Outcome.CANCELLED


def test_a_job_that_waited_too_long_ends_timeout_without_running(daemon):
    pools = {"default": SMALL | {"size": {"min": 1, "max": 1}}}
    with DaemonProcess(pools) as narrow, narrow.client() as client:
        blocker = client.submit("import time; time.sleep(60)")
        narrow.until(lambda: narrow.pool()["running"] == 1)
        result = client.run("print('ran')", queue_timeout=0.3)
        assert (result.outcome, result.stdout, result.worker) == (Outcome.TIMEOUT, "", None)
        assert "backlog" in result.reason
        client.cancel(blocker)


def test_a_killed_worker_is_noticed_its_job_is_lost_and_it_is_replaced(daemon, client):
    job_id = client.submit("import time; time.sleep(60)")
    daemon.until(lambda: "running" in {entry["state"] for entry in daemon.call("history", id=job_id)["entries"]})
    victim = daemon.worker_of(job_id)
    began = time.monotonic()
    time.sleep(0.5)
    ran_s = time.monotonic() - began
    os.kill(daemon.pid_of(victim), signal.SIGKILL)
    result = client.result(job_id, timeout=20)
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
    job_id = client.submit("import time; time.sleep(600)", limits=Limits(wall_s=20))
    busy = daemon.worker_of(job_id)
    os.kill(daemon.pid_of(busy), signal.SIGSTOP)
    result = client.result(job_id, timeout=60)
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


def test_a_limit_over_the_maximum_is_refused_with_both_numbers(client):
    with pytest.raises(LimitExceededError, match=r"limits\.wall_s: 100") as caught:
        client.run("result = 1", limits=Limits(wall_s=100))
    assert (caught.value.fields["asked"], caught.value.fields["maximum"]) == (100, 20)


def test_code_over_its_cap_is_refused_with_both_numbers(client):
    with pytest.raises(TooLargeError):
        client.run("#" * (wire.MAX_CODE_BYTES + 1))


def test_arguments_that_cannot_be_carried_are_refused_at_once(client):
    with pytest.raises(ValueCodecError, match="args"):
        client.run("def main(f): pass", entry="main", args=[threading.Lock()])


def test_a_variable_the_pool_does_not_allow_is_refused(client):
    with pytest.raises(InvalidJobError, match="LD_PRELOAD"):
        client.run("result = 1", env={"LD_PRELOAD": "/tmp/x.so"})


def test_a_client_without_a_daemon_fails_within_its_timeout_and_says_what_it_tried(tmp_path):
    from pool.client import Client

    began = time.monotonic()
    with (
        Client(f"ipc://{tmp_path}/none.sock", timeout=1) as client,
        pytest.raises(DaemonUnreachableError, match=r"none\.sock"),
    ):
        client.run("result = 1")
    assert time.monotonic() - began < 60


def raw(daemon, *frames, name="submit"):
    import zmq

    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(f"ipc://{daemon.run_dir}/{name}.sock")
    socket.send_multipart(list(frames))
    try:
        return socket.recv_multipart() if socket.poll(60_000) else None
    finally:
        context.destroy(linger=0)


@pytest.mark.parametrize("name", ["submit", "admin"])
@pytest.mark.parametrize(
    "frames",
    [(b"",), (b"garbage",), (b"GET / HTTP/1.1",), (wire.PREAMBLE, b"\xc1"), (wire.PREAMBLE, b"\xff" * 70_000)],
)
def test_a_garbage_frame_is_answered_with_a_typed_refusal(daemon, client, name, frames):
    answer = raw(daemon, *frames, name=name)
    decoder = wire.to_client if name == "submit" else wire.to_admin
    message, _ = wire.decode(decoder, answer)
    assert message.code == "protocol_remote"


def test_a_message_of_another_version_is_answered_with_what_to_do(daemon, client):
    message, _ = wire.decode(wire.to_client, raw(daemon, wire.MAGIC + b"\x63", b"\x80"))
    assert message.code == VersionMismatchError.code
    assert "install the same version" in message.message


def test_random_bytes_on_the_raw_socket_disturb_nobody(daemon, client):
    import socket

    for name in ("submit", "admin"):
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(str(daemon.run_dir / f"{name}.sock"))
            door.sendall(Random(1).randbytes(4096))


# ---- operation ----


def test_draining_refuses_new_jobs_and_resume_takes_them_again(daemon, client):
    daemon.call("drain", pool="default")
    try:
        with pytest.raises(DrainingError):
            client.run("result = 1")
        assert client.run("result = 1", pool="single").value == 1
    finally:
        daemon.call("resume", pool="default")


def test_recycle_replaces_every_worker_of_a_pool(daemon, client):
    before = {each["id"] for each in daemon.workers()}
    daemon.call("recycle", pool="default")
    daemon.until(lambda: not before & {each["id"] for each in daemon.workers()} and daemon.workers(state="idle"))


def test_resize_takes_effect(daemon, client):
    daemon.call("resize", pool="default", min=3, max=3)
    daemon.until(lambda: len(daemon.workers(state="idle")) == 3)
    daemon.call("resize", pool="default", min=2, max=3)


def test_the_history_of_a_job_shows_its_steps_while_it_runs_and_after_its_end(daemon, client):
    client.submit("import time; time.sleep(60)", job_id="shown")
    steps = [
        ("queued", f"accepted from uid {os.getuid()}"),
        ("leased", "leased by default-"),
        ("running", "started by default-"),
    ]
    daemon.until(lambda: len(daemon.call("history", id="shown")["entries"]) == len(steps))
    client.cancel("shown")
    assert client.result("shown", timeout=30).outcome == "cancelled"
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
        assert answer.result(30).value == "finished"


def test_results_are_forgotten_after_their_time():
    with DaemonProcess({"default": SMALL}, result_ttl_s=1) as running, running.client() as client:
        job_id = client.submit("result = 1")
        assert client.result(job_id, timeout=20).value == 1

        def forgotten():
            try:
                client.result(job_id, timeout=20)
            except UnknownJobError:
                return True
            return False

        running.until(forgotten)
