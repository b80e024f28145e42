"""The benchmarks' own parts, with made-up figures: ratios and their bounds, the report, and the open loop."""

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import floor, openloop, ratios, report
from benchmarks.jobs import JOBS

ROOT = Path(__file__).parents[2]
DOCKER, PROCESS = "no-op: docker run / pool, max_jobs 100", "no-op: process pool / pool, max_jobs 100"
CPU = "no-op: CPU of pool / fork loop"
BOUNDS = [
    ratios.Bound(DOCKER, least=30.0, most=None),
    ratios.Bound(PROCESS, least=0.05, most=None),
    ratios.Bound(CPU, least=None, most=3.0),
]


def entry(group, case, data_s, **extra):
    """A measurement in the form that pytest-benchmark writes."""
    median = sorted(data_s)[len(data_s) // 2]
    return {"group": group, "extra_info": {"case": case, **extra}, "stats": {"median": median, "data": data_s}}


def run(pool_s=0.004, **others):
    found = [entry("no-op", name.replace("_", " "), [value]) for name, value in others.items()]
    return {"benchmarks": [entry("no-op", "pool, max_jobs 100", [pool_s]), *found]}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The files of a run, in a directory of the test's own."""
    bounds = [
        {"ratio": DOCKER, "least": 30, "why": "the first bar"},
        {"ratio": PROCESS, "least": 0.05, "why": "seen: 0.1"},
    ]
    for name in ("LATEST", "FLOOR", "RATIOS", "BASELINE"):
        monkeypatch.setattr(ratios, name, tmp_path / name.lower())
    (tmp_path / "baseline").write_text(json.dumps({"bounds": bounds}))
    return tmp_path


def save(results, found):
    (results / "latest").write_text(json.dumps(found))


def fallen(judgements):
    return [each.ratio for each in judgements if each.fell]


def test_a_ratio_below_its_least_or_above_its_most_has_fallen():
    assert fallen(ratios.check({DOCKER: 29.9, PROCESS: 0.2, CPU: 3.1}, BOUNDS, quick=False)) == [DOCKER, CPU]


def test_a_ratio_that_was_not_measured_counts_as_fallen():
    assert fallen(ratios.check({DOCKER: 40.0}, BOUNDS, quick=False)) == [PROCESS, CPU]


def test_a_quick_run_leaves_out_docker_run_and_the_fork_loop_and_nothing_else():
    assert fallen(ratios.check({}, BOUNDS, quick=True)) == [PROCESS]


def test_another_run_is_compared_with_allowance_for_a_busy_machine():
    before, now = {DOCKER: 60.0, PROCESS: 0.2, CPU: 2.0}, {DOCKER: 41.0, PROCESS: 0.13, CPU: 3.1}
    assert fallen(ratios.compare(now, before, BOUNDS)) == [PROCESS, CPU]


def test_the_exit_status_is_1_when_a_ratio_has_fallen_and_the_last_line_names_it(results, capsys):
    save(results, run(docker_run=0.04, process_pool=0.0004))
    assert ratios.main(["--check"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"Fallen: {DOCKER}."


def test_the_ratios_of_one_run_are_what_a_later_run_is_compared_with(results, capsys):
    save(results, run(docker_run=0.4))
    assert ratios.main([]) == 0
    saved = (results / "ratios").rename(results / "saved.json")
    save(results, run(docker_run=0.1))
    assert ratios.main(["--compare", str(saved)]) == 1
    assert "FELL (0.25 x)" in capsys.readouterr().out


def test_the_ratios_of_the_fork_loop_come_from_its_own_file(results):
    save(results, run(docker_run=0.4))
    ratios.write_ratios(results / "floor", {CPU: 2.5})
    assert ratios.main([]) == 0
    assert ratios.read_ratios(results / "ratios") == pytest.approx({DOCKER: 100, CPU: 2.5})


def test_every_bound_of_the_baseline_is_on_a_ratio_that_a_full_run_has():
    jobs = [report.Row(job.name, case, 1, 1.0, 1.0, {}) for job in JOBS for case in (*ratios.OTHERS, *ratios.POOLS)]
    arms = {(job, arm): floor.Figures([1.0], [1.0]) for job in floor.JOBS for arm in ("pool", "fork loop")}
    possible = {*ratios.of_rows(jobs), *floor.ratios(arms, "fork loop")}
    assert {bound.ratio for bound in ratios.read_bounds(ratios.BASELINE)} <= possible


# ---- the report ----


def measured(*, pandas_pool_s=0.010):
    return [
        entry("no-op", "in-process", [0.0001] * 5),
        entry("no-op", "docker run", [0.300] * 5),
        entry("no-op", "pool, max_jobs 1", [0.002] * 5, starts={"parked": 5}),
        entry("no-op", "pool, max_jobs 100", [0.001] * 19 + [0.004], p50_ms={"dispatch_ms": 0.4}),
        entry("pandas", "docker run", [0.700] * 5),
        entry("pandas", "pool, max_jobs 1", [pandas_pool_s] * 5),
        entry("sustained", "pool, max_jobs 1", [10.0], jobs=20, starts={"cold": 18, "parked": 2}),
    ]


def read(directory, entries):
    (directory / "bench.json").write_text(json.dumps({"benchmarks": entries}))
    return report.read(directory / "bench.json")


def test_the_bar_is_met_when_the_worst_warm_pool_of_each_job_meets_it(tmp_path):
    assert "is met: no-op 150 times, pandas 70 times" in report.verdict(read(tmp_path, measured()))


def test_the_bar_is_not_met_when_one_job_misses_it(tmp_path):
    rows = read(tmp_path, measured(pandas_pool_s=0.020))
    assert "NOT met: no-op 150 times, pandas 35 times" in report.verdict(rows)


# ---- the open loop ----


class Client:
    """Its first job ends 50 ms after the other two."""

    def __init__(self):
        self.open = 3
        self.others_ended = asyncio.Event()

    async def run(self, *_arguments, **_options):
        first, self.open = self.open == 3, self.open - 1
        if first:
            await self.others_ended.wait()
            await asyncio.sleep(0.05)
        elif self.open == 0:
            self.others_ended.set()
        return type("Result", (), {"value": 1})


async def test_a_job_that_takes_long_does_not_delay_the_next_ones():
    found = await openloop.send(Client(), [0.0, 0.01, 0.02])
    assert found.get_total_count() == 3
    assert found.get_max_value() >= 50_000


async def test_a_job_that_is_sent_late_has_the_delay_in_its_latency():
    class Blocked(Client):
        async def run(self, *_arguments, **_options):
            if self.open == 3:
                time.sleep(0.3)  # noqa: ASYNC251 - as if the sender had not had a core
            self.open -= 1
            return type("Result", (), {"value": 1})

    found = await openloop.send(Blocked(), [0.0, 0.05])
    assert found.get_value_at_percentile(1) >= 200_000


def test_the_daemon_alone_is_measured_for_each_durability():
    command = [sys.executable, "-m", "benchmarks.dispatch", "--jobs", "20", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert all(re.search(rf"{durability}\W+\d", done.stdout) for durability in ("none", "crash")), done.stdout
