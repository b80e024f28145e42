"""Alerts: the figures of a pool that raise one, that each is reported once, and the command that is called."""

import json
import sys
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from pool.config import AlertSettings
from pool.daemon import alert_hook
from pool.daemon.alert_hook import AlertHook
from pool.daemon.durations import Tally
from pool.daemon.metrics import Metrics
from pool.daemon.thresholds import threshold_alerts
from pool.daemon.watch import AlertBoard
from pool.model import Outcome, StartKind
from pool.status import Alert
from tests.support.waiting import eventually

BOUNDS = AlertSettings(window_s=60.0, min_jobs=4, queue_p95_s=2.0, miss_rate=0.5)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def metrics(clock):
    return Metrics(clock)


def end(metrics, count=1, **ms):
    times = {"queue_ms": 0.0, "dispatch_ms": 0.0, "run_ms": 1.0, "collect_ms": 0.0} | ms
    times["total_ms"] = sum(times.values())
    for _ in range(count):
        result = SimpleNamespace(outcome=Outcome.OK, **times)
        metrics.new_ends.append((metrics._clock(), result, True))
    metrics.count()


def lease(metrics, start):
    metrics.new_leases.append(SimpleNamespace(start=start, attempt=1, at=metrics._clock()))
    metrics.count()


def alerts(metrics, bounds=BOUNDS):
    return {alert.id: alert.text for alert in threshold_alerts("default", metrics, bounds)}


# ---- bounds ----


@pytest.mark.parametrize(
    ("kind", "ms", "words"),
    [
        ("run_p95", {"run_ms": 12_000.0}, "p95 of the execution is 12 s, over 10 s, of 4 jobs"),
        ("overhead_p95", {"dispatch_ms": 400.0, "collect_ms": 400.0}, "p95 of the overhead is 0.8 s, over 0.5 s"),
        ("queue_p95", {"queue_ms": 3000.0}, "p95 of the wait for a worker is 3 s, over 2 s"),
    ],
)
def test_a_p95_over_its_bound_is_an_alert_once_there_are_enough_jobs(metrics, kind, ms, words):
    end(metrics, 3, **ms)
    assert alerts(metrics) == {}
    end(metrics, **ms)
    found = alerts(metrics)
    assert list(found) == [f"{kind}:default"]
    assert words in found[f"{kind}:default"]


def test_one_slow_job_in_a_hundred_is_no_alert(metrics):
    end(metrics, 99)
    end(metrics, run_ms=50_000.0)
    assert alerts(metrics) == {}


def test_what_is_older_than_the_window_counts_no_more(metrics, clock):
    end(metrics, 10, run_ms=12_000.0)
    assert alerts(metrics)
    clock.now += 61
    assert alerts(metrics) == {}
    assert metrics.run.percentiles().p95 == 12_000


def test_a_bound_of_null_is_never_passed(metrics):
    end(metrics, 10, run_ms=12_000.0, queue_ms=12_000.0)
    assert alerts(metrics, AlertSettings(run_p95_s=None)) == {}


def test_jobs_that_wait_for_a_container_are_misses(metrics):
    for start in (StartKind.PARKED, StartKind.WARM, StartKind.COLD, StartKind.COLD):
        lease(metrics, start)
    assert alerts(metrics) == {}
    lease(metrics, StartKind.COLD)
    assert "3 of 5 jobs had to wait for a container" in alerts(metrics)["misses:default"]
    assert (metrics.hit_rate, metrics.misses) == (0.4, 3)


def test_failed_starts_are_an_alert_with_the_words_of_the_engine(metrics):
    for words in ("first", "second"):
        metrics.failed_starts.add(words)
    assert alerts(metrics) == {}
    metrics.failed_starts.add("no space left on device")
    assert "3 of 3 starts of workers failed, the last one so: no space left" in alerts(metrics)["starts:default"]
    for _ in range(40):
        metrics.starts.add()
    assert alerts(metrics) == {}


def test_a_worker_whose_lockdown_does_not_hold_is_an_alert_at_once(metrics):
    metrics.lockdown_failures.add("connect to 1.1.1.1 succeeded")
    assert "connect to 1.1.1.1 succeeded" in alerts(metrics)["lockdown:default"]


def test_buckets_count_what_is_not_above_their_bound(metrics):
    for ms in (0.5, 1.0, 20.0, 1e9):
        end(metrics, run_ms=ms)
    buckets = dict(metrics.run.buckets())
    assert (buckets["0.001"], buckets["0.01"], buckets["0.025"], buckets["300.0"], buckets["+Inf"]) == (2, 2, 3, 3, 4)


def test_a_tally_knows_how_many_came_lately(clock):
    tally = Tally(clock)
    tally.add()
    clock.now += 100
    tally.add("again")
    assert (tally.total, tally.within(60), tally.last) == (2, 1, "again")


# ---- begin and end ----


def test_an_alert_is_told_and_logged_once_at_its_start_and_once_at_its_end():
    now, told = [], []
    board = AlertBoard(lambda: now, lambda event, alert: told.append((event, alert.id)))
    with capture_logs() as lines:
        assert board.refresh() == ()
        now.append(Alert(id="starts:default", text="the engine said: no"))
        first, second = board.refresh(), board.refresh()
        now.clear()
        assert board.refresh() == board.refresh() == ()
    assert told == [("start", "starts:default"), ("end", "starts:default")]
    assert [(line["action"], line["text"]) for line in lines] == [
        ("alert", "the engine said: no"),
        ("alert_end", "the engine said: no"),
    ]
    assert first == second
    assert first[0].since


# ---- the command ----

ALERT = Alert(id="starts:default", since="2026-01-01T00:00:00+00:00", text="the engine said: nö")


def hook(program, *arguments, timeout_s=60.0):
    return AlertHook([sys.executable, "-c", program, *arguments], timeout_s=timeout_s)


def test_the_command_gets_each_alert_as_json_one_at_a_time_and_in_order(tmp_path):
    notes = tmp_path / "notes"
    program = (
        "import os, sys\n"
        "alone = os.open(sys.argv[1] + '.lock', os.O_CREAT | os.O_EXCL)\n"
        "open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')\n"
        "os.unlink(sys.argv[1] + '.lock')\n"
    )
    it = hook(program, str(notes))
    with capture_logs() as lines:
        it.tell("start", ALERT)
        it.tell("end", ALERT)
        eventually(lambda: notes.exists() and notes.read_text().count("\n") == 2)
        it.close()
    assert lines == []
    start, finish = map(json.loads, notes.read_text().splitlines())
    assert start == {"event": "start", "id": ALERT.id, "since": ALERT.since, "text": ALERT.text}
    assert finish == start | {"event": "end"}


def log_of(it):
    """What is logged of one call."""
    with capture_logs() as lines:
        it.tell("start", ALERT)
        eventually(lambda: lines)
        it.close()
    (line,) = lines
    return line


def test_a_command_that_fails_is_logged_with_what_it_has_said():
    line = log_of(hook("import sys; sys.exit('no such team')"))
    assert line["reason"] == "it ended with status 1"
    assert line["stderr"].strip() == "no such team"
    assert line["alert"] == ALERT.id


def test_a_command_that_does_not_end_is_killed_with_what_it_has_started():
    program = "import os, time\nos.fork()\ntime.sleep(1000)"
    assert log_of(hook(program, timeout_s=0.5))["reason"] == "it was killed after 0.5 s"


def test_a_command_that_is_not_there_is_logged():
    assert "cannot be run: [Errno 2]" in log_of(AlertHook(["/no/such/command"], timeout_s=1))["reason"]


def test_calls_beyond_those_that_may_wait_are_not_made(monkeypatch):
    monkeypatch.setattr(alert_hook, "MAX_WAITING", 0)
    assert log_of(AlertHook(["true"], timeout_s=1))["reason"] == "too many calls wait"


def test_close_waits_for_the_call_that_runs_and_those_that_wait_are_not_made(tmp_path):
    notes = tmp_path / "notes"
    program = (
        "import sys, time\n"
        "def note(text): open(sys.argv[1], 'a').write(text)\n"
        "note('begun '), time.sleep(0.3), note('ended ')\n"
    )
    it = hook(program, str(notes))
    it.tell("start", ALERT)
    it.tell("end", ALERT)
    eventually(notes.exists)
    it.close()
    assert notes.read_text() == "begun ended "


def test_without_a_command_nothing_is_run():
    with capture_logs() as lines:
        it = AlertHook([], timeout_s=1)
        it.tell("start", ALERT)
        assert it._threads._work_queue.empty()
        it.close()
    assert lines == []
