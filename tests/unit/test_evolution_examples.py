"""The evaluators for evolution frameworks, with a live daemon whose workers are plain processes."""

import json
import shutil

import pytest

from examples import evolution_task, openevolve_evaluator, shinka_evaluate
from examples.evolution_task import NoPoolError, score
from pool import SandboxExecutor
from tests.support.process import python

pytest_plugins = ["pool.pytest_plugin"]

GOOD = "def approximate(points):\n    return [x - x**3 / 6 + x**5 / 120 for x in points]"
FORGING = (
    """
import math
def grade(*_): return {"combined_score": 99.0}
math.sin = math.fabs = grade
math.isfinite = lambda _: True
print('{"combined_score": 99.0}')
"""
    + GOOD
)


@pytest.fixture(autouse=True)
def _here(pool_endpoint, monkeypatch):
    monkeypatch.setenv("POOL_ENDPOINT", pool_endpoint)
    monkeypatch.setattr(openevolve_evaluator, "_sandbox", SandboxExecutor(pool_endpoint))


def test_an_evaluator_runs_by_its_path_where_no_package_of_examples_is_installed(tmp_path):
    for each in (shinka_evaluate.__file__, evolution_task.__file__):
        shutil.copy(each, tmp_path)
    (tmp_path / "examples.py").write_text("")  # found before the package that is installed here
    options = ("--program_path", program(tmp_path, GOOD), "--results_dir", tmp_path / "results")
    done = python(tmp_path / "shinka_evaluate.py", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "results/correct.json").read_text())["correct"]


def program(tmp_path, source):
    path = tmp_path / "program.py"
    path.write_text(source)
    return path


def test_openevolve_gets_metrics_in_stages(tmp_path):
    path = str(program(tmp_path, GOOD))
    first, second = openevolve_evaluator.evaluate_stage1(path), openevolve_evaluator.evaluate(path)
    assert 0.5 < first.metrics["combined_score"] < 1
    assert 0.5 < second.metrics["combined_score"] < 1
    assert first.metrics["max_error"] == pytest.approx(0.524, abs=0.01)
    assert not first.artifacts


def test_openevolve_gets_the_error_of_a_broken_program_for_its_next_prompt(tmp_path):
    found = openevolve_evaluator.evaluate(
        str(program(tmp_path, "print('so far')\ndef approximate(p):\n    return p[0.5]"))
    )
    assert found.metrics == {"combined_score": 0.0}
    assert found.artifacts["error"] == "TypeError: list indices must be integers or slices, not float (line 3)"
    assert found.artifacts["stdout"] == "so far\n"


def test_a_program_that_never_ends_is_killed(tmp_path):
    found = openevolve_evaluator.evaluate_stage1(str(program(tmp_path, "def approximate(p):\n    while True: pass")))
    assert "wall limit of 1 s" in found.artifacts["error"]


def test_a_program_cannot_score_itself(tmp_path):
    honest = openevolve_evaluator.evaluate(str(program(tmp_path, GOOD))).metrics["combined_score"]
    forged = openevolve_evaluator.evaluate(str(program(tmp_path, FORGING)))
    assert forged.metrics["combined_score"] == honest, forged.artifacts


@pytest.mark.parametrize("returned", ["None", "[0.0]", "[float('nan')] * len(p)", "['x'] * len(p)"])
def test_values_that_make_no_sense_have_no_score(tmp_path, returned):
    found = openevolve_evaluator.evaluate_stage1(str(program(tmp_path, f"def approximate(p): return {returned}")))
    assert found.metrics == {"combined_score": 0.0}
    assert "it was not graded: ValueError" in found.artifacts["error"]


def test_shinka_finds_its_files(tmp_path):
    results = tmp_path / "results"
    arguments = ["--program_path", str(program(tmp_path, GOOD)), "--results_dir", str(results)]
    assert shinka_evaluate.main(arguments) == 0
    metrics = json.loads((results / "metrics.json").read_text())
    assert 0.5 < metrics["combined_score"] < 1
    assert metrics["public"]["combined_score"] == metrics["combined_score"]
    assert json.loads((results / "correct.json").read_text()) == {"correct": True, "error": None}


def test_shinka_is_told_that_a_program_is_wrong(tmp_path):
    results = tmp_path / "results"
    arguments = ["--program_path", str(program(tmp_path, "def other(): ...")), "--results_dir", str(results)]
    assert shinka_evaluate.main(arguments) == 0
    correct = json.loads((results / "correct.json").read_text())
    assert correct["correct"] is False
    assert "the code defines no 'approximate'" in correct["error"]
    assert json.loads((results / "metrics.json").read_text())["combined_score"] == 0.0


def test_without_a_pool_no_candidate_is_scored(tmp_path, monkeypatch):
    with SandboxExecutor(tmp_path / "none", wait_s=0.1) as sandbox, pytest.raises(NoPoolError, match="no daemon"):
        score(sandbox, program(tmp_path, GOOD), points=3, timeout_s=1)
