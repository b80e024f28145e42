"""The open-loop load generator measures what it says, and the page of a damaged benchmark run is refused."""

import asyncio
import random
import time

import pytest

from benchmarks import openloop, page


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


@pytest.mark.parametrize(("arrivals", "at_once"), openloop.ARRIVALS.items())
def test_jobs_are_planned_at_the_rate_that_was_asked_for_in_groups_of_their_kind(arrivals, at_once):
    times = list(openloop.planned(100.0, 200.0, at_once=at_once, rng=random.Random(3)))
    assert times == sorted(times)
    assert 0.9 < len(times) / 20_000 < 1.1, arrivals
    assert len(set(times)) * at_once == len(times)


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


def test_a_job_that_ends_badly_ends_the_measurement():
    class Bad(Client):
        async def run(self, *_arguments, **_options):
            return type("Result", (), {"value": None, "outcome": "error", "reason": "it raised"})

    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        asyncio.run(openloop.send(Bad(), [0.0]))


def test_a_page_of_a_damaged_run_is_refused(tmp_path, capsys):
    (tmp_path / "latest.json").write_text("{}")
    assert page.main([str(tmp_path)]) == 1
    assert "is not the JSON of a benchmark run" in capsys.readouterr().err
