"""The benchmarks that start a daemon with real workers, each with tiny sizes. They judge nothing; they have to run."""

import json

import pytest

from benchmarks import growth, memory, openloop, starts, transport
from benchmarks.worker import IMAGE

PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def image():
    """They take the image of this checkout, which is built for the tests."""


def test_the_open_loop_measures_each_load_from_the_planned_time(tmp_path, capsys):
    saved, picture = tmp_path / "found.json", tmp_path / "found.png"
    openloop.main(["--seconds", "1", "--loads", "30", "--json", str(saved), "--plot", str(picture)])
    found = json.loads(saved.read_text())
    assert found["capacity"] > 0
    assert [(row["load"], row["arrivals"]) for row in found["rows"]] == [(30, "poisson"), (30, "bursts")]
    assert all(0 < row["percentiles"]["50.0"] <= row["longest"] for row in found["rows"])
    assert picture.read_bytes().startswith(PNG)
    assert "p99 / p50" in capsys.readouterr().out


def test_series_of_growth_are_measured_from_their_first_points_on(tmp_path):
    saved, picture = tmp_path / "found.json", tmp_path / "found.png"
    series = ["--most", "1", "--rounds", "1", "workers", "clients", "duration"]
    growth.main([*series, "--json", str(saved), "--plot", str(picture)])
    assert all(figure > 0 for series in json.loads(saved.read_text()).values() for figure in series.values())
    assert picture.read_bytes().startswith(PNG)


def test_a_job_is_compared_with_its_transport(tmp_path):
    transport.main(["--rounds", "3", "--gap-ms", "1", "--json", str(tmp_path / "found.json")])
    assert json.loads((tmp_path / "found.json").read_text())["pool / floor"] > 1


def test_the_memory_of_daemon_and_worker_is_measured(tmp_path):
    memory.main(["--waiting", "20", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["idle worker, PSS"] > found["idle worker, PSS without files"] > 10
    assert found["daemon, idle"] > 10


def test_a_start_is_measured_in_its_parts(capsys):
    starts.main(["--rounds", "1", "--engine", "docker"])
    assert f"| docker, {IMAGE} | " in capsys.readouterr().out
