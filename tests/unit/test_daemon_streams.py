"""A job's output while it runs: a real daemon, real runners as plain processes, real clients."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pool import JobResult, OutputEvent
from pool.model import Limits, Outcome
from tests.support.daemons import module_daemon

POOL = {
    "size": {"min": 3, "max": 3},
    "preload": {"modules": []},
    "limits": {"wall_s": 300, "cpu_s": 30, "memory": "256m", "output": "1m", "result": "1m"},
    "max_limits": {"wall_s": 300, "cpu_s": 30, "memory": "256m", "output": "16m", "result": "1m"},
}
#: `step` waits until the test makes a file of that name.
STEPS = """
import os, sys, time
def step(name):
    while not os.path.exists({place!r} + name):
        time.sleep(0.005)
"""


daemon = module_daemon({"default": POOL})


pytestmark = pytest.mark.usefixtures("next_job_is_served")


class Steps:
    """Source text for jobs that wait at their steps, and `go`, which lets them pass."""

    def __init__(self, directory):
        self.directory = directory
        self.source = STEPS.format(place=f"{directory}/")

    def go(self, name):
        (self.directory / name).touch()


@pytest.fixture
def steps(tmp_path):
    return Steps(tmp_path)


def text_of(events, stream="stdout"):
    return "".join(each.text for each in events if isinstance(each, OutputEvent) and each.stream == stream)


def test_output_arrives_before_the_job_goes_on(client, steps):
    heard = []

    def listen(text):
        heard.append(text)
        steps.go(str(len(heard)))  # the job prints the next line only after this one was heard

    code = steps.source + "for n in range(1, 6):\n    print('line', n)\n    step(str(n))"
    result = client.run(code, on_stdout=listen)
    assert result.outcome is Outcome.OK, result
    assert heard == [f"line {n}\n" for n in range(1, 6)]
    assert result.stdout == "".join(heard)


def test_both_streams_arrive_in_the_order_in_which_they_were_printed(client, steps):
    heard = []

    def listen(text):
        heard.append(text)
        steps.go(str(len(heard)))

    code = steps.source + "for n in range(1, 9):\n    print(n, file=(sys.stdout, sys.stderr)[n % 2])\n    step(str(n))"
    result = client.run(code, on_stdout=listen, on_stderr=listen)
    assert "".join(heard).split() == [str(n) for n in range(1, 9)]
    assert (result.stdout, result.stderr) == ("2\n4\n6\n8\n", "1\n3\n5\n7\n")


def test_what_is_printed_without_a_pause_comes_whole_and_in_order(client):
    out, err = [], []
    code = "import sys\nfor n in range(30_000):\n    print(n)\n    print(-n, file=sys.stderr)"
    result = client.run(code, on_stdout=out.append, on_stderr=err.append)
    assert "".join(out) == result.stdout == "".join(f"{n}\n" for n in range(30_000))
    assert "".join(err) == result.stderr == "".join(f"{-n}\n" for n in range(30_000))
    assert result.truncated == ()


def test_a_character_that_is_printed_in_halves_arrives_once_and_whole(client):
    heard = []
    code = "import os, time\nfor byte in '\\u20ac\\U0001f600x'.encode():\n    os.write(1, bytes([byte]))\n    time.sleep(0.03)"
    result = client.run(code, on_stdout=heard.append)
    assert "".join(heard) == result.stdout == "\u20ac\U0001f600x"


def test_a_reader_that_comes_late_starts_at_the_first_byte(client, daemon, steps):
    job_id = client.submit(steps.source + "print('early')\nstep('seen')\nprint('late')")
    with daemon.client() as other:
        events = other.stream(job_id, timeout=120)
        assert next(events) == OutputEvent(stream="stdout", text="early\n", offset=0)
        again = client.stream(job_id, timeout=120)  # when somebody reads already
        assert next(again) == OutputEvent(stream="stdout", text="early\n", offset=0)
        steps.go("seen")
        for each in (events, again):
            *output, result = each
            assert text_of(output) == "late\n"
            assert isinstance(result, JobResult)
            assert result.stdout == "early\nlate\n"
    assert text_of(client.stream(job_id, timeout=120)) == "early\nlate\n"  # and after the end


def test_two_readers_of_one_client_get_the_same(client, steps):
    job_id = client.submit(steps.source + "print('a' * 100_000)\nstep('on')\nprint('b' * 100_000)")
    both_read = threading.Barrier(2, action=lambda: steps.go("on"))

    def read():
        events = client.stream(job_id, timeout=120)
        first = next(events)
        both_read.wait(120)
        return text_of([first, *events])

    with ThreadPoolExecutor(2) as threads:
        texts = [each.result() for each in [threads.submit(read) for _ in range(2)]]
    assert texts == ["a" * 100_000 + "\n" + "b" * 100_000 + "\n"] * 2


def test_another_process_can_read(client, daemon, steps):
    job_id = client.submit(steps.source + "print('hello')\nstep('on')\nprint('world')")
    program = textwrap.dedent("""
        import sys
        from pool import Client, OutputEvent
        with Client(sys.argv[1]) as client:
            for event in client.stream(sys.argv[2], timeout=120):
                print(event.text if isinstance(event, OutputEvent) else event.outcome, end="", flush=True)
    """)
    command = [sys.executable, "-c", program, daemon.endpoint, job_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "hello\n"
        steps.go("on")
        assert reader.stdout.read() == "world\nok"


def test_a_reader_of_a_job_that_waits_gets_its_output_once_it_runs(client, daemon, steps):
    blocked = [client.submit(steps.source + "step('on')") for _ in range(3)]
    job_id = client.submit("print('my turn')")
    with ThreadPoolExecutor(1) as threads:
        reader = threads.submit(lambda: list(client.stream(job_id, timeout=120)))
        daemon.until(lambda: daemon.pool()["backlog"] == 1)
        steps.go("on")
        *output, result = reader.result()
    assert text_of(output) == "my turn\n"
    assert result.ok
    for each in blocked:
        assert client.result(each, timeout=120).ok


def test_the_output_of_a_job_that_is_killed_by_its_deadline_arrives_to_the_end(client):
    heard = []
    result = client.run("import time\nprint('before')\ntime.sleep(60)", limits=Limits(wall_s=5), on_stdout=heard.append)
    assert result.outcome is Outcome.TIMEOUT
    assert heard == ["before\n"]
    assert result.stdout == "before\n"


def test_a_job_that_is_cancelled_while_it_is_read_ends_with_what_it_had_printed(client):
    job_id = client.submit("import time\nprint('before')\ntime.sleep(60)")
    events = client.stream(job_id, timeout=120)
    assert next(events).text == "before\n"
    client.cancel(job_id)
    (result,) = events
    assert (result.outcome, result.stdout) == (Outcome.CANCELLED, "before\n")


def test_a_callback_that_raises_has_the_job_killed(client):
    def stumble(text):
        raise ZeroDivisionError(text)

    with pytest.raises(ZeroDivisionError):
        client.run("import time\nprint('x')\ntime.sleep(60)", job_id="stumbled", on_stdout=stumble)
    assert client.result("stumbled", timeout=120).outcome is Outcome.CANCELLED


def test_output_that_arrived_is_kept_when_the_worker_dies(client, daemon):
    job_id = client.submit("import os, time\nprint('pid', os.getppid())\ntime.sleep(60)")
    events = client.stream(job_id, timeout=60)
    first = next(events)
    (worker,) = (each for each in daemon.workers() if each["job"] == job_id)
    os.kill(daemon.pid_of(worker), signal.SIGKILL)
    (result,) = events
    assert (result.outcome, result.stdout) == (Outcome.LOST, first.text)
    daemon.until(lambda: len(daemon.workers(state="idle")) == 3)


def test_a_flood_arrives_up_to_the_cap_and_the_daemon_stays_small(client, daemon):
    heard = []
    client.run("result = 1")
    before = daemon.resident_bytes()
    code = "import os\nblock = b'0123456789abcdef' * 4096\nfor _ in range(16 * 1024):\n    os.write(1, block)"
    result = client.run(code, on_stdout=heard.append)
    assert result.outcome is Outcome.OK, result
    assert (result.stdout_bytes, result.truncated) == (1 << 30, ("stdout",))
    assert "".join(heard) == result.stdout == "0123456789abcdef" * 65536
    assert daemon.resident_bytes() - before < 24 << 20


def test_a_reader_that_stands_still_slows_nobody_and_gets_it_all_in_the_end(client, daemon, tmp_path):
    """Its process is stopped, so nothing is taken from its socket."""
    program = textwrap.dedent("""
        import sys
        from pool import Client, Limits
        text = []
        with Client(sys.argv[1]) as client:
            flood = "for n in range(60):\\n    print(str(n % 10) * 100_000)"
            code = f"import time\\nprint('go')\\ntime.sleep(0.5)\\n{flood}"
            def heard(piece):
                if not text:
                    print("stop me", flush=True)
                    sys.stdin.readline()
                text.append(piece)
            result = client.run(code, on_stdout=heard, limits=Limits(output="16m"))
            print(result.outcome, "".join(text) == result.stdout, len(result.stdout), flush=True)
    """)
    command = [sys.executable, "-c", program, daemon.endpoint]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "stop me\n"
        reader.send_signal(signal.SIGSTOP)
        try:
            for _ in range(20):
                heard = []
                assert client.run("print('quick')", on_stdout=heard.append).ok
                assert heard == ["quick\n"]
            daemon.until(lambda: daemon.pool()["running"] == 0)  # its job ends meanwhile
        finally:
            reader.send_signal(signal.SIGCONT)
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "ok True 6000063\n"


def test_a_reader_that_dies_changes_nothing_for_the_job_and_for_other_readers(client, daemon, steps):
    job_id = client.submit(steps.source + "print('a' * 50_000)\nstep('on')\nprint('b' * 50_000)")
    program = textwrap.dedent("""
        import os, sys
        from pool import Client
        next(Client(sys.argv[1]).stream(sys.argv[2], timeout=120))
        os.kill(os.getpid(), 9)
    """)
    died = subprocess.run([sys.executable, "-c", program, daemon.endpoint, job_id], check=False)
    assert died.returncode == -signal.SIGKILL
    with ThreadPoolExecutor(1) as threads:
        reader = threads.submit(lambda: list(client.stream(job_id, timeout=120)))
        steps.go("on")
        *output, result = reader.result()
    assert text_of(output) == result.stdout == "a" * 50_000 + "\n" + "b" * 50_000 + "\n"


def test_many_readers_at_once_get_the_output_of_their_own_jobs(client):
    def listen(number):
        heard = []
        code = f"import time\nfor n in range(20):\n    print({number}, n)\n    time.sleep(0.002)"
        result = client.run(code, on_stdout=heard.append)
        return result.outcome, "".join(heard) == "".join(f"{number} {n}\n" for n in range(20))

    with ThreadPoolExecutor(12) as threads:
        assert set(threads.map(listen, range(24))) == {(Outcome.OK, True)}


def test_the_same_job_submitted_again_with_callbacks_is_the_same_job(client, daemon, steps):
    code = steps.source + "print('once')\nstep('on')"
    first = client.submit(code, job_id="twice")
    heard = []
    thread = threading.Thread(target=lambda: client.run(code, job_id=first, on_stdout=heard.append, timeout=120))
    thread.start()
    daemon.until(lambda: heard)
    steps.go("on")
    thread.join(120)
    assert heard == ["once\n"]
