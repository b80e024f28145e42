"""The open-loop load generator measures what it says, and the page of a damaged benchmark run is refused."""

import asyncio
import time

from benchmarks import openloop


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


def test_a_job_that_takes_long_does_not_delay_the_next_ones():
    found = asyncio.run(asyncio.wait_for(openloop.send(Client(), [0.0, 0.01, 0.02]), 60))
    assert found.get_total_count() == 3
    assert found.get_max_value() >= 50_000


def test_a_job_that_is_sent_late_has_the_delay_in_its_latency():
    class Blocked(Client):
        async def run(self, *_arguments, **_options):
            if self.open == 3:
                time.sleep(0.3)  # noqa: ASYNC251 - as if the sender had not had a core
            self.open -= 1
            return type("Result", (), {"value": 1})

    found = asyncio.run(openloop.send(Blocked(), [0.0, 0.05]))
    assert found.get_value_at_percentile(1) >= 200_000
