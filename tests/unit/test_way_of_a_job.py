"""One plain job, followed through the real client, daemon and runner: the tour of docs/architecture.md is true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support import tour

ROOT = Path(__file__).parents[2]
#: A step of the tour: "9. `pool/core/x.py` `function` does this", with further files and functions in it.
_STEP = re.compile(r"^(\d+)\. (`.*)$", re.MULTILINE)
_PLACE = re.compile(r"`((?:pool|worker_image)/\S+?\.py)` `([\w.]+)`")
#: The way of a plain job may have no more distinct functions and files. Lower them when the way gets shorter. A loaded machine
#: adds a few, such as the fork of the next child beside a slow job: the shortest way seen has 129 and 86 functions.
MOST = {("client", "daemon"): (145, 40), ("runner", "child"): (100, 21)}


def _steps():
    text = (ROOT / "docs/architecture.md").read_text()
    section = text.partition("## The way of one job")[2].partition("\n## ")[0]
    return {int(number): _PLACE.findall(line) for number, line in _STEP.findall(section)}


def _functions_of(path):
    """Qualified names of the functions and methods that a file defines."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return names


@pytest.fixture(scope="module")
def followed():
    return tour.record()


def test_the_tour_has_at_most_25_numbered_steps_with_a_file_and_a_function_each():
    steps = _steps()
    assert list(steps) == list(range(1, len(steps) + 1))
    assert 10 <= len(steps) <= 25
    assert all(steps.values()), steps


def test_every_function_that_the_tour_names_exists():
    for number, places in _steps().items():
        for file, function in places:
            assert function in _functions_of(ROOT / file), f"step {number}: {file} has no {function}"


def test_a_plain_job_calls_the_functions_of_the_tour_in_its_order(followed):
    *steps, (_, last) = _steps().items()
    called = [(file, function) for _, file, function in followed.calls]
    for number, places in steps:
        for file, function in places:
            place = (file.removeprefix("worker_image/"), function)
            assert place in called, f"step {number}: a plain job does not call {place}"
    firsts = [called.index((places[0][0].removeprefix("worker_image/"), places[0][1])) for _, places in steps]
    # Listener and controller are passed more than once, and daemon and client run side by side: what is compared is
    # the order of the steps that a job takes for the first time in one process after the other.
    submitted, started, run = (firsts[number - 1] for number in (2, 7, 15))
    assert submitted < started < run
    assert last, "the last step, the cleanup, comes after the client has its result"


@pytest.mark.parametrize(("processes", "most"), MOST.items(), ids=["client and daemon", "runner and child"])
def test_the_way_of_a_plain_job_gets_no_longer(followed, processes, most):
    functions, files = followed.functions(*processes), followed.files(*processes)
    listed = "\n".join(" ".join(each) for each in functions)
    assert (len(functions), len(files)) <= most, f"{len(functions)} functions in {len(files)} files:\n{listed}"
    assert len(files) <= most[1], files
