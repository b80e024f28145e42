"""Many jobs at once from asyncio: one connection, no thread for each job. Cancelling the task cancels its jobs."""

from __future__ import annotations

import asyncio

from pool import AsyncClient, JobResult, Limits

SOURCE = """
def score(n):
    return sum(1 for k in range(2, n) if n % k == 0)
"""


async def scores(numbers: list[int], endpoint: str | None = None) -> list[JobResult]:
    """One result for each number, in their order."""
    async with AsyncClient(endpoint, timeout=60) as client:
        jobs = [client.run(SOURCE, entry="score", args=[n], limits=Limits(wall_s=5)) for n in numbers]
        return await asyncio.gather(*jobs)


if __name__ == "__main__":
    for number, result in zip(range(90, 100), asyncio.run(scores(list(range(90, 100)))), strict=True):
        print(number, result.value if result.ok else result.reason)
