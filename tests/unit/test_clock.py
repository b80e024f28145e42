"""A jump of the wall clock changes time stamps only: ages and deadlines use the monotonic clock."""

import ast
import time
from pathlib import Path

import pytest

from pool.daemon import journal_file
from pool.daemon.journal_entries import Accept
from pool.daemon.journal_file import JournalFile
from pool.model import Limits, Outcome
from tests.support.daemons import DaemonProcess, pool_of

ROOT = Path(__file__).parents[2]
HOUR = 3600
#: Every place that asks for the time of day, and what for.
KNOWN = {
    ("pool/daemon/journal_file.py", "_set_aside"): "the name of a journal that cannot be read",
    ("pool/daemon/journal_file.py", "new_era"): "epochs above those of a journal that is gone",
    ("pool/daemon/journal_file.py", "_adjust_clock"): "a restart of the host, where the monotonic clock begins anew",
    ("pool/daemon/alerts.py", "_date"): "a time stamp",
    ("pool/daemon/watch.py", "_dated"): "a time stamp",
    ("pool/testing.py", "_age_s"): "how long ago a file was changed",
}
ASKS = {"time", "time_ns", "localtime", "gmtime", "ctime", "now", "utcnow", "today", "CLOCK_REALTIME"}
MODULES = {"time", "datetime", "date"}


def askers(path):
    """The functions of a module that ask for the time of day."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in ast.walk(tree):
        of_module = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in MODULES
        by_name = isinstance(node, ast.ImportFrom) and node.module == "time"
        if (of_module and node.attr in ASKS) or (by_name and ASKS & {each.name for each in node.names}):
            around = [each.name for each in functions if each.lineno <= node.lineno <= (each.end_lineno or 0)]
            yield around[-1] if around else "module"


def test_no_other_place_asks_for_the_time_of_day():
    files = [*ROOT.glob("pool/**/*.py"), *ROOT.glob("worker_image/runner/**/*.py")]
    assert len(files) > 100
    found = {(str(path.relative_to(ROOT)), name) for path in files for name in askers(path)}
    assert found == KNOWN.keys()


POOL = pool_of(1, limits={"wall_s": 300, "cpu_s": 300}, recycle={"max_age_s": 1800}, backlog={"queue_timeout_s": 1800})
WAITS = "import os, time\nwhile not os.path.exists({!r}): time.sleep(0.02)\nresult = 'it went on'"


def test_jumps_by_an_hour_end_no_job_no_worker_and_no_result_and_stretch_no_limit(home):
    clock = home / "clock"
    clock.write_text("0")
    with (
        DaemonProcess({"default": POOL}, engine="jumping", home=home, durability="crash", result_ttl_s=1800) as daemon,
        daemon.client(timeout=120) as client,
    ):
        client.run("result = 1", job_id="before")
        client.submit(WAITS.format(str(home / "go")), job_id="runs")
        client.submit("result = 2", job_id="waits")
        daemon.until(lambda: daemon.workers(state="leased"))
        for jump_s in (HOUR, -HOUR):
            clock.write_text(str(jump_s))
            assert all(0 <= each["age_s"] < HOUR / 2 for each in daemon.call("jobs")["jobs"])
            assert [each["id"] for each in daemon.workers(state="leased")] == ["default-1"]
        (home / "go").touch()
        assert [client.result(each).value for each in ("before", "runs", "waits")] == [1, "it went on", 2]
        client.submit("import time; time.sleep(250)", job_id="limited", limits=Limits(wall_s=5))
        daemon.until(lambda: "running" in {each["state"] for each in daemon.call("history", id="limited")["entries"]})
        clock.write_text(str(HOUR))
        limited = client.result("limited")
        assert (limited.outcome, 4_000 < limited.timings.run_ms < 100_000) == (Outcome.TIMEOUT, True)
        assert "max_age" not in daemon.pool()["recycles"]


@pytest.mark.parametrize("jump_s", [HOUR, -HOUR])
def test_a_jump_between_two_daemons_leaves_the_times_in_the_journal_and_numbers_the_second_above_the_first(
    tmp_path, monkeypatch, jump_s
):
    eras, times, right = [], [], time.time
    for off_by in (0, jump_s):
        monkeypatch.setattr(journal_file.time, "time", lambda by=off_by: right() + by)
        file = JournalFile(tmp_path / "journal", fsync=False)
        if not off_by:
            file.commit([Accept(1, "0/j", "default", b"", b"", (), 50.0)])
        eras.append(file.new_era())
        times += [row.accepted_at for row in file.rows()]
        file.close()
    assert eras[0] < eras[1]
    assert times == [50.0, 50.0]
