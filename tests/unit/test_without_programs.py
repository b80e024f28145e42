"""How many cores a worker tells its jobs, by the CPU quota of its cgroup."""

import os

import pytest
from runner import without_programs

QUOTAS = {
    "a core and a half": ({"cpu.max": "150000 100000"}, 2),
    "a tenth of a core": ({"cpu.max": "10000 100000"}, 1),
    "no quota": ({"cpu.max": "max 100000"}, os.cpu_count()),
    "cgroup 1": ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    "cgroup 1 without a quota": ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, os.cpu_count()),
    "nothing that can be read": ({}, os.cpu_count()),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_the_cores_are_the_quota_rounded_up_and_never_more_than_there_are(name, tmp_path, monkeypatch):
    files, cores = QUOTAS[name]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    real = os.sched_getaffinity(0)
    monkeypatch.setattr(os, "cpu_count", os.cpu_count)
    monkeypatch.setattr(os, "sched_getaffinity", os.sched_getaffinity)
    without_programs.set_up_cores(tmp_path)
    assert os.cpu_count() == min(cores, len(real))
    assert os.sched_getaffinity(0) == set(sorted(real)[: os.cpu_count()])
    assert set(without_programs.thread_caps().values()) == {str(os.cpu_count())}
