"""What a loop does to a pool, and what it gets: a strategy that prints without end, and hundreds of jobs at once."""

from __future__ import annotations

import asyncio

import numpy as np
import pandas as pd
import pytest

from pool import AsyncClient, Outcome, SandboxExecutor
from tests.support.process import threads

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("worker_image")]

TEMPLATE = {
    "size": {"min": 2, "max": 2},
    "recycle": {"max_jobs": 100_000},
    "preload": {"modules": ["numpy", "pandas"]},
    "limits": {"wall_s": 30, "cpu_s": 30, "memory": "512m"},
}
CLOSE = pd.Series(
    100 * np.cumprod(1 + 0.01 * np.sin(np.arange(300.0))), index=pd.bdate_range("2024-01-01", periods=300)
)
PRINTS = "def strategy(p):\n    for _ in range(1024): print('x' * (1 << 20))\n    return p * 0"
FLAT = "def strategy(p): return p * 0"
JOBS = 200


def test_a_strategy_that_prints_a_gigabyte_has_a_clear_result_and_a_bounded_output(daemon):
    with SandboxExecutor(daemon.endpoint) as sandbox:
        printed = sandbox.execute_strategy_safe(PRINTS, CLOSE, timeout=2)
        if not printed.success:  # so much takes longer than its limit on most machines
            assert (printed.outcome, "wall limit of 2 s" in printed.error) == (Outcome.TIMEOUT, True), printed
        assert len(printed.job.stdout) == min(printed.job.stdout_bytes, 1 << 20)
        assert sandbox.execute_strategy_safe(FLAT, CLOSE, timeout=30).metrics["total_return"] == 0.0


def test_hundreds_of_jobs_at_once_on_one_async_client_are_right_and_cost_no_thread_each(daemon):
    seen = set()

    async def square(client, number):
        result = await client.run("def main(n): return n * n", entry="main", args=[number])
        seen.update(threads())
        return result.value

    async def main():
        async with AsyncClient(daemon.endpoint, timeout=60) as client:
            return await asyncio.gather(*[square(client, number) for number in range(JOBS)])

    before = threads()
    assert asyncio.run(main()) == [number * number for number in range(JOBS)]
    assert len(seen - before) <= 1
