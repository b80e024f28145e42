"""The tour in docs/architecture.md: at most 25 steps, and every function that it names exists in the file that it names."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
TOUR = PAGE.partition("## The way of one job")[2].partition("\n## ")[0]
STEPS = re.findall(r"`([\w/]+\.py)` `([\w.]+)`", TOUR)


def functions(path):
    """`function` and `Class.method` of a file."""
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef))


def test_the_tour_has_at_most_25_numbered_steps():
    numbers = re.findall(r"^(\d+)\. `", TOUR, re.MULTILINE)
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert 15 <= len(numbers) <= 25


@pytest.mark.parametrize(("path", "function"), STEPS)
def test_a_step_names_a_function_that_exists(path, function):
    assert function in set(functions(path))


def test_packages_that_the_page_names_exist():
    table = PAGE.partition("## What belongs where")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `([\w/.]+)`", table, re.MULTILINE)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []
