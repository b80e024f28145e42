"""The benchmark report, from files in the form that pytest-benchmark writes."""

import json

import pytest

from benchmarks import report


def entry(group, case, data_s, **extra):
    ordered = sorted(data_s)
    median = ordered[len(ordered) // 2]
    return {"group": group, "extra_info": {"case": case, **extra}, "stats": {"median": median, "data": data_s}}


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


@pytest.fixture
def saved(tmp_path):
    def save(entries):
        path = tmp_path / "bench.json"
        path.write_text(json.dumps({"benchmarks": entries}))
        return path

    return save


def test_the_bar_is_met_when_the_worst_warm_pool_of_each_job_meets_it(saved):
    assert "is met: no-op 150 times, pandas 70 times" in report.verdict(report.read(saved(measured())))


def test_the_bar_is_not_met_when_one_job_misses_it(saved):
    rows = report.read(saved(measured(pandas_pool_s=0.020)))
    assert "NOT met: no-op 150 times, pandas 35 times" in report.verdict(rows)
