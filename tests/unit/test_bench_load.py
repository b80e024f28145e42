"""The open-loop load generator, the growth of cost and the page of a benchmark run. No test needs a worker."""

import asyncio
import random
import time

import pytest

from benchmarks import growth, openloop, page, transport

PNG = b"\x89PNG"


class SlowFirst:
    """A client whose first job takes long; the others take none."""

    def __init__(self, first_s):
        self.waits = [first_s]
        self.sent = []

    async def run(self, *_arguments, **_options):
        self.sent.append(time.monotonic())
        await asyncio.sleep(self.waits.pop() if self.waits else 0)
        return type("Result", (), {"value": 1})


@pytest.mark.parametrize(("arrivals", "at_once"), openloop.ARRIVALS.items())
def test_jobs_are_planned_at_the_rate_that_was_asked_for_in_groups_of_their_kind(arrivals, at_once):
    times = list(openloop.planned(100.0, 200.0, at_once=at_once, rng=random.Random(3)))
    assert times == sorted(times)
    assert 0.9 < len(times) / 20_000 < 1.1, arrivals
    assert len(set(times)) * at_once == len(times)


def test_a_job_that_takes_long_does_not_delay_the_next_ones():
    client = SlowFirst(0.5)
    found = asyncio.run(openloop.send(client, [0.0, 0.01, 0.02]))
    assert found.get_total_count() == 3
    assert client.sent[-1] - client.sent[0] < 0.4
    assert found.get_max_value() >= 500_000


def test_a_job_that_is_sent_late_has_the_delay_in_its_latency():
    class Blocked(SlowFirst):
        async def run(self, *arguments, **options):
            if not self.sent:
                time.sleep(0.3)  # noqa: ASYNC251 - as if the sender had not had a core
            return await super().run(*arguments, **options)

    found = asyncio.run(openloop.send(Blocked(0), [0.0, 0.05]))
    assert found.get_value_at_percentile(1) >= 200_000


def test_a_job_that_ends_badly_ends_the_measurement():
    class Bad(SlowFirst):
        async def run(self, *_arguments, **_options):
            return type("Result", (), {"value": None, "outcome": "error", "reason": "it raised"})

    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        asyncio.run(openloop.send(Bad(0), [0.0]))


def test_the_figures_of_a_load_are_in_its_table_and_picture(tmp_path):
    histogram = openloop.HdrHistogram(1, 10_000_000, 3)
    for ms in range(1, 101):
        histogram.record_value(ms * 1000)
    found = [openloop.figures(50, arrivals, histogram) for arrivals in openloop.ARRIVALS]
    assert found[0].jobs == 100
    assert found[0].spread == pytest.approx(99 / 50, rel=0.02)
    assert "| 50 % | poisson | 100 | 50.0 | 90.0 | 99.0 |" in openloop.table(20.0, found)
    openloop.plot(found, tmp_path / "load.png")
    assert (tmp_path / "load.png").read_bytes().startswith(PNG)


def test_a_series_grows_from_its_first_point(tmp_path):
    figures = {10: 40.0, 100: 80.0}
    assert growth.table("jobs", figures).splitlines()[2:] == ["| 10 | 40.0 | 1.00 |", "| 100 | 80.0 | 2.00 |"]
    growth.plot({"jobs": figures, "clients": figures}, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(PNG)


def test_a_series_that_there_is_not_is_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        growth.main(["colour"])
    assert "no such series: colour" in capsys.readouterr().err


def test_the_floor_of_the_transport_answers_and_leaves_no_process():
    with transport.floor() as once:
        found = transport.measure({"floor": once}, rounds=3, gap_s=0.001)
    assert 0 < found["floor"] < 30_000


def test_the_page_has_a_section_for_each_benchmark_that_was_run(tmp_path):
    (tmp_path / "memory.md").write_text("| memory | MB |\n|---|---:|\n| daemon, idle | 60 |\n")
    (tmp_path / "dispatch.md").write_text("durability none 500 us\n")
    (tmp_path / "growth.md").write_text("| jobs | us a job |\n")
    (tmp_path / "growth.png").write_bytes(PNG)
    assert page.main([str(tmp_path)]) == 0
    text = (tmp_path / page.PAGE).read_text()
    assert "- kernel: " in text
    assert "- processor: " in text
    assert "| daemon, idle | 60 |" in text
    assert "```text\ndurability none 500 us\n```" in text
    assert "![How cost grows](growth.png)" in text
    assert "openloop" not in text


def test_a_page_of_a_damaged_run_is_refused(tmp_path, capsys):
    (tmp_path / "latest.json").write_text("{}")
    assert page.main([str(tmp_path)]) == 1
    assert "is not the JSON of a benchmark run" in capsys.readouterr().err
