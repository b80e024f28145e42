"""What a loop may ask of a pool: a strategy that prints without end, a thousand jobs at once, and ten
thousand cases of one candidate.
"""

import asyncio

import numpy as np
import pandas as pd
import psutil

from pool import AsyncClient, Limits, Outcome, SandboxExecutor
from tests.support.daemons import pool_of
from tests.support.process import threads

BARE = pool_of(2, recycle={"max_jobs": 100_000}, limits={"wall_s": 600, "cpu_s": 30, "memory": "512m"})
STRATEGIES = {**BARE, "size": {"min": 1, "max": 1}, "preload": {"modules": ["numpy", "pandas"]}}
POOLS = {"default": BARE, "strategies": STRATEGIES}
CLOSE = pd.Series(
    100 * np.cumprod(1 + 0.01 * np.sin(np.arange(300.0))), index=pd.bdate_range("2024-01-01", periods=300)
)
PRINTS = "def strategy(p):\n    for _ in range(1024): print('x' * (1 << 20))\n    return p * 0"
FLAT = "def strategy(p): return p * 0"
SQUARE = "def main(n): return n * n"
JOBS, CASES = 1000, 10_000
#: Of the client and of the daemon, beyond what they held before: 10,000 results are a few KiB each.
MOST_BYTES = 150 << 20


def test_a_strategy_that_prints_a_gigabyte_has_a_clear_result_and_a_bounded_output(daemon):
    with SandboxExecutor(daemon.endpoint, pool="strategies") as sandbox:
        printed = sandbox.execute_strategy_safe(PRINTS, CLOSE, timeout=2)
        if not printed.success:  # so much takes longer than its limit on most machines
            assert (printed.outcome, "wall limit of 2 s" in printed.error) == (Outcome.TIMEOUT, True), printed
        assert len(printed.job.stdout) == min(printed.job.stdout_bytes, 1 << 20)
        assert sandbox.execute_strategy_safe(FLAT, CLOSE, timeout=300).metrics["total_return"] == 0.0


def test_a_thousand_jobs_at_once_on_one_async_client_are_right_and_cost_no_thread_each(daemon):
    seen = set()

    async def square(client, number):
        result = await client.run(SQUARE, entry="main", args=[number])
        seen.update(threads())
        return result.value

    async def main():
        async with AsyncClient(daemon.endpoint, timeout=60) as client:
            return await asyncio.gather(*[square(client, number) for number in range(JOBS)])

    before = threads()
    assert asyncio.run(main()) == [number * number for number in range(JOBS)]
    assert len(seen - before) <= 1


def test_cancelling_one_task_of_a_thousand_cancels_its_job_and_no_other(daemon):
    async def main():
        async with AsyncClient(daemon.endpoint, timeout=60) as client:
            holds = [asyncio.create_task(client.run("import time\ntime.sleep(600)")) for _ in range(2)]
            tasks = [asyncio.create_task(client.run(SQUARE, entry="main", args=[n])) for n in range(JOBS)]
            await asyncio.to_thread(daemon.until, lambda: daemon.pool()["backlog"] >= JOBS)
            for task in (*holds, tasks[JOBS // 2]):
                task.cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    before = daemon.pool()["jobs"]["cancelled"]
    values = [getattr(each, "value", each) for each in asyncio.run(main())]
    assert isinstance(values.pop(JOBS // 2), asyncio.CancelledError)
    assert values == [n * n for n in range(JOBS) if n != JOBS // 2]
    daemon.until(lambda: daemon.pool()["jobs"]["cancelled"] == before + 3)


def test_ten_thousand_cases_have_a_row_each_and_neither_side_holds_much_memory(daemon, client):
    cases = [{"args": [n], "expected": n * n if n % 1000 else -1} for n in range(CASES)]
    here, there = psutil.Process(), psutil.Process(daemon.process.pid)
    before = here.memory_info().rss, there.memory_info().rss
    report = client.run_tests(SQUARE, cases, entry="main")
    after = here.memory_info().rss, there.memory_info().rss
    assert [row.passed for row in report.cases] == [bool(n % 1000) for n in range(CASES)]
    assert [row.job.value for row in report.cases] == [n * n for n in range(CASES)]
    assert all(now - then < MOST_BYTES for now, then in zip(after, before, strict=True)), (before, after)


def test_the_first_failure_of_ten_thousand_cases_ends_the_run_early(daemon, client):
    def ended():
        return sum(daemon.pool()["jobs"][name] for name in ("ok", "error", "cancelled"))

    cases = [{"args": [n], "expected": n * n if n != 20 else -1} for n in range(CASES)]
    before = ended()
    report = client.run_tests(SQUARE, cases, entry="main", stop_on_first_failure=True)
    assert [row.job is not None for row in report.cases] == [n <= 20 for n in range(CASES)]
    assert (report.passed, report.first_failure) == (20, report.cases[20])
    assert ended() - before < 100


def test_ten_thousand_cases_end_with_the_time_of_the_call_and_each_case_with_its_own(daemon, client):
    slow = "import time\ndef main(n): time.sleep(n)"
    cases = [{"args": [0], "expected": None}, {"args": [20], "expected": None}] * (CASES // 2)
    report = client.run_tests(slow, cases, entry="main", limits=Limits(wall_s=2), timeout=20)
    first, second, *_, last = report.cases
    assert (first.passed, second.job.outcome, last.job) == (True, Outcome.TIMEOUT, None)
    assert "not judged in time" in last.reason
    daemon.until(lambda: daemon.pool()["backlog"] == 0)
