"""A real runner and daemons that come and go: plain libzmq sockets that bind its link, one after the other."""

import contextlib
import itertools
import shutil
import subprocess
import sys
import threading
import time

import psutil
import pytest
import zmq
from runner.link import Link

from pool import values, wire
from pool.model import Outcome
from pool.screen import Policy
from pool.testing import lay_out
from tests.support.waiting import eventually

LIMITS = {
    "wall_s": 60.0, "cpu_s": 60.0, "memory": 1 << 30, "tmp": 1 << 20, "output": 1 << 20, "result": 1 << 20, "processes": 8,
}  # fmt: skip
START = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from runner.main import main; main(sys.argv[1:])"
#: The job ends when the test makes the file.
WAITS = "def main(path):\n    import os, time\n    while not os.path.exists(path): time.sleep(0.01)\n    return 'it ended'\n"
TOKEN = "a token"
HELLO = wire.Hello(runner="1", sources="digest", python="3.11")


class FakeDaemon:
    """Binds the link. `kill` is the end of it, from one moment to the next."""

    def __init__(self, path):
        self.context = zmq.Context()
        self.link = self.context.socket(zmq.PAIR)
        self.link.bind(f"ipc://{path}")

    def kill(self):
        self.context.destroy(linger=0)

    def send(self, message, *payload):
        self.link.send_multipart(wire.encode(message, payload))

    def next(self):
        """The next message that is no heartbeat, with its payload."""
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline, "heartbeats only"
            assert self.link.poll(60_000), "nothing came"
            message, payload = wire.decode(wire.from_runner, self.link.recv_multipart())
            if not isinstance(message, wire.Heartbeat):
                return message, payload

    def hear(self, kind):
        message, payload = self.next()
        assert isinstance(message, kind), message
        return message, payload

    def ready(self):
        """Hear that the runner is there and ready."""
        self.hear(wire.Hello)
        self.hear(wire.Ready)

    def welcome(self):
        self.ready()
        self.send(wire.Welcome(token=TOKEN))

    def settle(self):
        """Wait until the runner has handled all that it was sent."""
        self.send(wire.Probe(seq=99))
        while True:
            assert self.link.poll(60_000), "nothing came"
            message, _ = wire.decode(wire.from_runner, self.link.recv_multipart())
            if isinstance(message, wire.Heartbeat) and message.seq == 99:
                return

    def run(self, job_id, epoch, code, *arguments):
        frames = values.encode((arguments, {}), max_bytes=4096)
        run = wire.Run(job_id=job_id, epoch=epoch, entry="main", screened=False, **LIMITS)
        self.send(run, code.encode(), b"", *frames)

    def done(self):
        """Hear the end of a job; it was announced if the job took longer than a few milliseconds."""
        message, payload = self.next()
        if isinstance(message, wire.Started):
            message, payload = self.next()
        assert isinstance(message, wire.Done), message
        return message, payload

    def resumed(self):
        """Hear Resume and answer it."""
        resume, _ = self.hear(wire.Resume)
        assert resume.token == TOKEN
        self.send(wire.Adopted())
        return resume


@contextlib.contextmanager
def started(command):
    """A process that is killed at the end, also when the test has failed."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return lay_out(tmp_path_factory.mktemp("tree"))


@pytest.fixture
def place(tmp_path):
    return tmp_path / "link.sock"


@pytest.fixture
def daemons(place):
    """Makes daemons, one after the other."""
    made = []

    def make():
        made.append(FakeDaemon(place))
        return made[-1]

    yield make
    for each in made:
        each.kill()


@pytest.fixture
def start(tree, place, tmp_path):
    """A context that has a runner, with these options besides; `tree`: of its sources."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def start(*options, tree=tree):
        command = [sys.executable, "-s", "-P", "-c", START, str(tree), "--link", str(place), "--isolation", "none"]
        return started([*command, "--scratch", str(scratch), *options])

    return start


@pytest.fixture
def runner(start, daemons):
    """Started, and welcomed by the first daemon, which is `runner.daemon`."""
    daemon = daemons()
    with start("--heartbeat-s", "0.2", "--orphan-s", "30") as process:
        daemon.welcome()
        daemon.settle()
        process.daemon = daemon
        yield process


def test_an_idle_runner_shows_its_token_to_the_next_daemon_and_serves_it(runner, daemons):
    runner.daemon.kill()
    second = daemons()
    assert second.resumed() == wire.Resume(token=TOKEN, state="idle", jobs=0)
    second.run("a", 1, "def main(): return 7\n")
    _, payload = second.done()
    assert values.decode(payload[3:]) == 7
    second.hear(wire.Freed)


def test_a_runner_that_is_sending_when_its_daemon_ends_finds_each_of_the_next_ones(start, place):
    """While libzmq sends, it may take in the event that the connection has ended."""
    daemon = FakeDaemon(place)
    with start("--heartbeat-s", "0.001", "--orphan-s", "30"):
        daemon.welcome()
        daemon.settle()
        for _ in range(60):
            daemon.kill()
            daemon = FakeDaemon(place)
            daemon.resumed()
            daemon.settle()
        daemon.kill()


def test_a_job_runs_on_while_there_is_no_daemon_and_its_answer_comes_to_the_next(runner, daemons, tmp_path):
    runner.daemon.run("a", 5, WAITS, str(tmp_path / "go"))
    runner.daemon.settle()
    runner.daemon.kill()
    second = daemons()
    resume = second.resumed()
    assert (resume.state, resume.job_id, resume.epoch, resume.jobs) == ("running", "a", 5, 1)
    assert 0 < resume.elapsed_s < 60
    (tmp_path / "go").touch()
    done, payload = second.hear(wire.Done)
    assert (done.job_id, done.epoch, values.decode(payload[3:])) == ("a", 5, "it ended")
    second.hear(wire.Freed)


def test_a_job_is_said_to_have_started_only_if_it_runs_for_a_while(runner, tmp_path):
    runner.daemon.run("a", 5, WAITS, str(tmp_path / "go"))
    started, _ = runner.daemon.hear(wire.Started)
    assert (started.job_id, started.epoch) == ("a", 5)
    (tmp_path / "go").touch()
    runner.daemon.hear(wire.Done)
    runner.daemon.hear(wire.Freed)
    epochs = itertools.count(6)

    def unannounced():
        runner.daemon.run("a", next(epochs), "def main(): return 7\n")
        first, _ = runner.daemon.next()
        if isinstance(first, wire.Started):  # a busy machine
            runner.daemon.hear(wire.Done)
        runner.daemon.hear(wire.Freed)
        return isinstance(first, wire.Done)

    eventually(unannounced)


def test_output_comes_after_the_word_that_its_job_has_started(runner, tmp_path):
    runner.daemon.run("b", 6, "print('x', flush=True)\n" + WAITS, str(tmp_path / "go"))
    runner.daemon.send(wire.Stream(job_id="b", epoch=6))
    runner.daemon.hear(wire.Started)
    _, (piece,) = runner.daemon.hear(wire.Printed)
    assert bytes(piece) == b"x\n"
    (tmp_path / "go").touch()
    runner.daemon.hear(wire.Done)


def test_an_answer_is_held_until_it_is_acknowledged(runner, daemons):
    runner.daemon.run("a", 5, "def main(): return 'kept'\n")
    runner.daemon.done()
    runner.daemon.hear(wire.Freed)
    runner.daemon.kill()
    second = daemons()
    assert second.resumed().state == "answered"
    second.hear(wire.Done)
    second.kill()
    third = daemons()
    resume = third.resumed()
    assert (resume.state, resume.job_id, resume.epoch) == ("answered", "a", 5)
    _, payload = third.hear(wire.Done)
    assert values.decode(payload[3:]) == "kept"
    third.hear(wire.Freed)
    third.send(wire.Collected(job_id="a", epoch=5))
    third.settle()
    third.kill()
    assert daemons().resumed() == wire.Resume(token=TOKEN, state="idle", epoch=5, jobs=1)


def test_an_acknowledgement_of_another_attempt_does_not_count(runner, daemons):
    runner.daemon.run("a", 5, "def main(): return 'kept'\n")
    runner.daemon.done()
    runner.daemon.hear(wire.Freed)
    runner.daemon.send(wire.Collected(job_id="a", epoch=4))
    runner.daemon.settle()
    runner.daemon.kill()
    assert daemons().resumed().state == "answered"


def test_the_next_job_acknowledges_the_answer_of_the_last_one(runner, daemons, tmp_path):
    runner.daemon.run("a", 5, "def main(): return 'kept'\n")
    runner.daemon.done()
    runner.daemon.hear(wire.Freed)
    runner.daemon.run("b", 6, WAITS, str(tmp_path / "go"))
    runner.daemon.settle()
    runner.daemon.kill()
    second = daemons()
    resume = second.resumed()
    assert (resume.state, resume.job_id, resume.epoch, resume.jobs) == ("running", "b", 6, 2)
    (tmp_path / "go").touch()
    done, _ = second.hear(wire.Done)
    assert done.job_id == "b"
    second.hear(wire.Freed)


def test_an_answer_that_the_next_daemon_does_not_want_is_dropped_and_the_runner_says_that_it_is_free(runner, daemons):
    runner.daemon.run("a", 5, "def main(): return 'kept'\n")
    runner.daemon.done()
    runner.daemon.hear(wire.Freed)
    runner.daemon.kill()
    second = daemons()
    resume, _ = second.hear(wire.Resume)
    assert (resume.state, resume.job_id, resume.epoch) == ("answered", "a", 5)
    second.send(wire.Collected(job_id="a", epoch=5))
    second.send(wire.Adopted())
    freed, _ = second.hear(wire.Freed)
    assert (freed.epoch, freed.residue) == (5, "")
    second.run("b", 6, "def main(): return 7\n")
    done, _ = second.done()
    assert done.job_id == "b"


def test_a_job_that_is_sent_before_the_runner_is_free_is_refused(runner, tmp_path):
    runner.daemon.run("a", 5, WAITS, str(tmp_path / "go"))
    runner.daemon.run("b", 6, "def main(): return 7\n")
    message, _ = runner.daemon.next()
    if isinstance(message, wire.Started):
        message, _ = runner.daemon.next()
    assert isinstance(message, wire.Broken), message
    assert "not free" in message.reason


def parked_child(runner, *, after=None):
    """The child of its zygote that is not being reaped, and is not `after`, which was there before."""
    found = []

    def look():
        children = [each for child in psutil.Process(runner.pid).children() for each in child.children()]
        found[:] = [each for each in children if each != after and each.status() != psutil.STATUS_ZOMBIE]
        return found

    eventually(look)
    return found[0]


def test_a_job_whose_child_has_died_before_it_came_runs_in_the_next_one(runner):
    daemon = runner.daemon
    child = parked_child(runner)
    zygote = child.parent()
    zygote.suspend()  # it reports the death after the job has come
    child.kill()
    eventually(lambda: child.status() == psutil.STATUS_ZOMBIE)
    daemon.run("a", 1, "def main(): return 'it ran'")
    daemon.settle()
    zygote.resume()
    done, _ = daemon.done()
    freed, _ = daemon.hear(wire.Freed)
    assert done.outcome is Outcome.OK
    assert freed.residue.startswith("parked")  # the worker is replaced


def test_a_job_that_waits_for_a_child_can_be_cancelled(runner):
    daemon = runner.daemon
    child = parked_child(runner)
    zygote = child.parent()
    zygote.suspend()
    child.kill()
    eventually(lambda: child.status() == psutil.STATUS_ZOMBIE)
    daemon.run("a", 1, "def main():\n    while True: pass")
    daemon.send(wire.Kill(job_id="a", epoch=1))
    daemon.settle()
    zygote.resume()
    assert daemon.done()[0].outcome is Outcome.CANCELLED


def test_a_worker_whose_parked_child_has_died_serves_once_more_and_ends_if_the_next_one_dies_too(runner):
    daemon = runner.daemon
    first = parked_child(runner)
    first.kill()
    second = parked_child(runner, after=first)
    daemon.run("a", 1, "def main(): return 'it ran'")
    assert daemon.done()[0].outcome is Outcome.OK
    assert daemon.hear(wire.Freed)[0].residue.startswith("parked")
    parked_child(runner, after=second).kill()
    broken, _ = daemon.hear(wire.Broken)
    assert "a child died" in broken.reason


def test_nothing_but_resume_is_sent_before_the_daemon_has_answered_it(runner, daemons):
    runner.daemon.kill()
    second = daemons()
    second.hear(wire.Resume)
    assert not second.link.poll(1000), "five heartbeats would have been due"
    second.send(wire.Adopted())
    assert second.link.poll(60_000)


def test_a_deadline_is_kept_without_a_daemon(runner, daemons):
    run = wire.Run(job_id="a", epoch=5, entry="main", screened=False, **LIMITS | {"wall_s": 0.3})
    runner.daemon.send(run, b"def main():\n    while True: pass\n", b"", *values.encode(((), {}), max_bytes=4096))
    runner.daemon.hear(wire.Started)
    runner.daemon.kill()
    second = daemons()
    second.resumed()
    done, _ = second.hear(wire.Done)
    assert done.outcome is Outcome.TIMEOUT


def test_a_runner_without_a_token_ends_with_its_daemon(start, daemons):
    first = daemons()
    with start() as process:
        first.ready()
        first.kill()
        assert process.wait(60) == 1


def test_a_runner_that_is_ready_before_its_link_is_up_says_so_after_its_hello(start, daemons):
    with start("--heartbeat-s", "0.2") as process:
        below = psutil.Process(process.pid)

        def rests():
            with contextlib.suppress(psutil.NoSuchProcess):  # one that has just ended
                return [each.status() for each in below.children(recursive=True)] == ["sleeping"] * 2

        eventually(rests)
        daemons().ready()


def test_a_worker_for_one_job_has_no_child_after_it(start, daemons):
    with start("--jobs", "1") as process:
        daemon = daemons()
        daemon.ready()
        for job_id, epoch in ("self-test", 0), ("job", 1):
            daemon.run(job_id, epoch, "def main():\n    return 1\n")
            assert daemon.done()[0].outcome is Outcome.OK
            if not epoch:
                daemon.hear(wire.Freed)
        below = psutil.Process(process.pid)
        eventually(lambda: len(below.children(recursive=True)) == 1)  # the zygote


def test_a_runner_that_no_daemon_comes_to_ends_after_its_time(start, daemons):
    first = daemons()
    with start("--orphan-s", "0.5") as process:
        first.welcome()
        first.run("a", 1, "def main(): return 7\n")
        first.done()
        first.kill()
        assert process.wait(60) == 1


# ---- code that was read ----

#: In place of the screen's function: tells of each text with `marked` in it that it reads.
TELLS = """
_examine = examine

def examine(code, policy, **options):
    import os
    if policy.mode != "off" and "marked" in str(code):
        os.write(2, b"read\\n")
    return _examine(code, policy, **options)
"""
WARNS = "def main(): return [1 is 1, '\\d'] and 'marked'\n"  # the compiler and the parser warn of it


def test_code_that_has_ended_ok_is_not_read_again_and_does_what_it_did(start, tree, tmp_path, daemons):
    daemon = daemons()
    with start("--screen", Policy().to_json(), tree=changed(tree, tmp_path, "pool/screen/__init__.py", TELLS)):
        daemon.welcome()
        codes = [WARNS, WARNS, *["import os\ndef main(): return 'marked'\n"] * 2, WARNS.replace("marked", "marked 2")]
        ends = [of_job(daemon, epoch, code) for epoch, code in enumerate(codes)]
    first, again, *refused, other = ends
    assert first[1].startswith("read\n")
    assert "SyntaxWarning" in first[1]
    assert again == (Outcome.OK, first[1].removeprefix("read\n"), "marked")
    assert refused == [(Outcome.REJECTED, "read\n", None)] * 2
    assert (other[1].startswith("read\n"), other[2]) == (True, "marked 2")


def test_code_that_has_ended_ok_without_being_read_is_read_when_it_has_to_be(start, tree, tmp_path, daemons):
    daemon, code = daemons(), "def main(): return 'marked'\n"
    with start("--screen", Policy().to_json(), tree=changed(tree, tmp_path, "pool/screen/__init__.py", TELLS)):
        daemon.welcome()
        ends = [of_job(daemon, epoch, code, screened=screened) for epoch, screened in enumerate((False, False, True))]
    assert ends == [(Outcome.OK, "", "marked")] * 2 + [(Outcome.OK, "read\n", "marked")]


def changed(tree, tmp_path, name, text):
    """A copy of the tree in which this text is added to a file."""
    shutil.copytree(tree, tmp_path / "tree")
    with (tmp_path / "tree" / name).open("a") as source:
        source.write(text)
    return tmp_path / "tree"


def of_job(daemon, epoch, code, **fields):
    """Outcome, standard error and value."""
    job_id = f"j{epoch}"
    daemon.send(wire.Run(job_id=job_id, epoch=epoch, entry="main", **LIMITS, **fields), code.encode(), b"")
    done, payload = daemon.done()
    daemon.hear(wire.Freed)
    value = values.decode(payload[3:]) if len(payload) > 3 else None
    return done.outcome, bytes(payload[1]).decode(), value


# ---- the warm-up of a parked child ----

TELLS_OF_WARM_UP = """
import os
_run = run
def run(part, setting):
    os.write(2, b"warm")
    _run(part, setting)
"""
#: So long that a child that is parked beside it would warm up if it did so by itself.
LONG = "import time\ndef main(): time.sleep(0.2)\n"


@pytest.fixture
def telling(start, daemons, tree, tmp_path):
    """The daemon of a runner whose children say on stderr that they warm up."""
    daemon = daemons()
    with start(tree=changed(tree, tmp_path, "runner/warmup.py", TELLS_OF_WARM_UP)):
        daemon.welcome()
        yield daemon


def test_the_parked_child_of_a_worker_that_is_free_for_a_while_warms_up(telling):
    epochs = itertools.count()

    def warm():
        time.sleep(0.2)
        return of_job(telling, next(epochs), "def main(): return 7\n") == (Outcome.OK, "warm", 7)

    eventually(warm)


def test_the_children_of_a_series_do_not_warm_up(telling):
    later = next(filter(None, (calls_after_the_first(telling, epoch) for epoch in itertools.count())))
    assert [call.stderr_bytes for call in later] == [0] * len(later)


def calls_after_the_first(daemon, epoch):
    """Of a series of two. There are none if the first has taken too long."""
    call, job_id = [b"", *values.encode(((), {}), max_bytes=4096)], f"j{epoch}"
    calls = (len(call), len(call))
    run = wire.Run(job_id=job_id, epoch=epoch, entry="main", screened=False, apart=True, calls=calls, **LIMITS)
    daemon.send(run, LONG.encode(), b"", *call, *call)
    _, payload = daemon.done()
    daemon.hear(wire.Freed)
    return wire.decode_calls(payload[3])[1:]


# ---- a runner that cannot begin ----


def test_the_reason_why_a_runner_cannot_begin_comes_after_its_hello(place, daemons):
    daemon = daemons()
    Link(zmq.Context(), place).leave(HELLO, wire.Broken(reason="no namespaces", permanent=True))
    daemon.hear(wire.Hello)
    broken, _ = daemon.hear(wire.Broken)
    assert (broken.reason, broken.permanent) == ("no namespaces", True)


def test_the_reason_why_a_runner_cannot_begin_waits_for_somebody_who_accepts_it(place, daemons, monkeypatch):
    link, tries = Link(zmq.Context(), place), []
    reconnect = link.reconnect
    monkeypatch.setattr(link, "reconnect", lambda: tries.append(reconnect()))
    leaving = threading.Thread(target=link.leave, args=(HELLO, wire.Broken(reason="no namespaces")))
    leaving.start()
    eventually(lambda: len(tries) > 3)
    daemon = daemons()
    daemon.hear(wire.Hello)
    daemon.hear(wire.Broken)
    leaving.join(60)
    assert not leaving.is_alive()
