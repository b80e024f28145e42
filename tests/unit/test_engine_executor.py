"""Engine calls in threads: their outcomes arrive in the loop's thread, in order."""

import queue
import threading
from dataclasses import replace
from math import inf

import pytest

from pool.daemon.engine_executor import EngineExecutor, LoopExecutor
from pool.engines.base import FoundContainer, WorkerSpec
from pool.errors import EngineError, EngineUnavailableError, ImageMissingError


class Loop:
    """Calls what the threads deliver, on the thread of the test."""

    def __init__(self):
        self._calls = queue.SimpleQueue()
        self.call_soon = self._calls.put

    def run_until(self, condition):
        while not condition():
            self._calls.get(timeout=120)()


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def executor(loop):
    made = LoopExecutor(2, name="test", call_soon=loop.call_soon)
    yield made
    made.close()


def test_work_runs_in_a_thread_and_its_outcome_arrives_in_the_loop(loop, executor):
    seen = []
    executor.submit(threading.get_ident, lambda done: seen.append((done.result(), threading.get_ident())))
    loop.run_until(lambda: seen)
    (thread, here), us = seen[0], threading.get_ident()
    assert thread != us
    assert here == us


@pytest.mark.parametrize("error", [ValueError("bad"), EngineError("worse")])
def test_an_error_of_the_work_is_raised_by_the_result(loop, executor, error):
    def fail():
        raise error

    seen = []
    executor.submit(fail, lambda done: seen.append(done.exception()))
    loop.run_until(lambda: seen)
    assert seen == [error]


def test_work_that_waits_for_other_work_is_delivered_after_it(loop, executor):
    seen, begins = [], threading.Event()
    first = executor.submit(begins.wait, lambda _: seen.append("first"))
    executor.submit(first.result, lambda _: seen.append("second"))
    begins.set()
    loop.run_until(lambda: len(seen) == 2)
    assert seen == ["first", "second"]


# ---- containers ----


class Container:
    def __init__(self, log, *, kill_fails=False):
        self.id, self._log, self.kill_fails = "c", log, kill_fails

    def pid(self):
        return None

    def diagnose(self):
        return "exit code 3"

    def kill(self):
        self._log.append("killed")
        if self.kill_fails:
            raise OSError("it stays")


class Engine:
    """Launches when the test allows it, or fails."""

    def __init__(self, outcome):
        self.launching, self.may_launch = threading.Event(), threading.Event()
        self.found = []
        self._outcome = outcome

    def find(self, **_):
        return self.found

    def launch(self, _):
        self.launching.set()
        assert self.may_launch.wait(60)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


SPEC = WorkerSpec(
    worker_id="p-1", pool="p", owner="o", instance="i", image="x", runtime=None, uid=1, command=(), mounts=(),
    memory_bytes=1, cpus=1, processes=1, tmp_bytes=1, tmp_inodes=1, nofile=1, apparmor="",
)  # fmt: skip


def launch(executor, outcome, log):
    engine = Engine(outcome)
    containers = EngineExecutor(engine, executor)
    containers.launch(SPEC, on_up=lambda up: log.append(up.container), on_failed=log.append)
    assert engine.launching.wait(60)
    return engine, containers


def test_a_stop_during_the_launch_waits_for_it_and_removes_the_container(loop, executor):
    log = []
    container = Container(log)
    engine, containers = launch(executor, container, log)
    containers.stop("p-1", diagnose=True, on_gone=lambda output, _: log.append(output))
    engine.may_launch.set()
    loop.run_until(lambda: "exit code 3" in log)
    assert [each for each in log if each != "killed"] == [container, "exit code 3"]
    assert "killed" in log


@pytest.mark.parametrize("error", [ImageMissingError("no image"), EngineError("no engine")])
def test_a_launch_that_fails_is_reported_with_its_error_and_its_stop_has_nothing_to_do(loop, executor, error):
    log = []
    engine, containers = launch(executor, error, log)
    engine.may_launch.set()
    containers.stop("p-1", diagnose=True, on_gone=lambda output, _: log.append(output))
    loop.run_until(lambda: len(log) == 2)
    assert log == [error, ""]


def test_an_unexpected_error_of_the_engine_becomes_an_engine_error(loop, executor):
    log = []
    engine, _ = launch(executor, KeyError("Id"), log)
    engine.may_launch.set()
    loop.run_until(lambda: log)
    assert isinstance(log[0], EngineError)
    assert "KeyError" in str(log[0])


def test_a_container_that_cannot_be_removed_is_gone_for_the_pool_and_removed_when_the_engine_answers(loop, executor):
    log = []
    container = Container(log, kill_fails=True)
    engine, containers = launch(executor, container, log)
    engine.may_launch.set()
    containers.stop("p-1", diagnose=False, on_gone=lambda output, _: log.append(output))
    loop.run_until(lambda: "" in log)
    first = containers.left.ask_at
    assert containers.left.since is not None
    containers.ask_again()
    loop.run_until(lambda: containers.left.ask_at not in {first, inf})
    assert containers.left.ask_at > first, "the wait grows"
    log.clear()
    container.kill_fails = False
    containers.ask_again()
    loop.run_until(lambda: containers.left.since is None)
    assert log == ["killed"]


def test_a_launch_without_an_answer_leaves_no_container_behind(loop, executor):
    log = []
    engine, containers = launch(executor, EngineUnavailableError("no answer"), log)
    engine.found = [found("p-1", Container(log)), found("p-2", Container(log), instance="another")]
    engine.may_launch.set()
    loop.run_until(lambda: log)
    containers.ask_again()
    loop.run_until(lambda: containers.left.since is None)
    assert log[1:] == ["killed"]
    assert containers.left.ask_at < inf, "the engine may have been slow to create it: it is asked once more"
    containers.ask_again()
    loop.run_until(lambda: len(log) == 3)
    loop.run_until(lambda: containers.left.ask_at == inf)


def test_a_launch_that_has_not_begun_when_its_worker_is_stopped_is_dropped(loop, executor):
    log = []
    engine, containers = launch(executor, EngineUnavailableError("no answer"), log)
    executor.submit(engine.may_launch.wait, lambda _: None)  # both threads wait
    containers.launch(replace(SPEC, worker_id="p-2"), on_up=log.append, on_failed=log.append)
    containers.stop("p-2", diagnose=False, on_gone=lambda output, _: log.append(output))
    engine.may_launch.set()
    loop.run_until(lambda: "" in log and any(isinstance(each, EngineUnavailableError) for each in log))
    assert len(log) == 2, "only the first was launched"


def test_whoever_stops_a_worker_is_told_that_the_engine_does_not_answer(loop, executor):
    log = []
    container = Container(log)
    container.kill = lambda: (_ for _ in ()).throw(EngineUnavailableError("stopped"))
    engine, containers = launch(executor, container, log)
    engine.may_launch.set()
    containers.stop("p-1", diagnose=False, on_gone=lambda output, away: log.append((output, away)))
    loop.run_until(lambda: ("", True) in log)


def test_a_container_of_a_worker_is_not_removed_with_what_is_left(loop, executor):
    log = []
    container = Container(log)
    engine, containers = launch(executor, container, log)
    engine.found = [found("p-1", container)]
    engine.may_launch.set()
    loop.run_until(lambda: log)
    containers.left.add(EngineError("a removal failed"))
    containers.ask_again()
    loop.run_until(lambda: containers.left.since is None)
    assert "killed" not in log


def found(worker_id, container, instance=""):
    return FoundContainer(container, worker_id=worker_id, instance=instance, running=True)
