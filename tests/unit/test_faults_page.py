"""docs/faults.md: the test that it names for each fault exists, and each fault of a campaign is in its table."""

import ast
import re
from pathlib import Path

from tests.chaos.faults import BY_NAME

ROOT = Path(__file__).parents[2]


def rows():
    """The cells of the table, without its head."""
    text = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    table = re.search(r"\| fault \| test \| in the campaign \|\n\|[-|]+\n((?:\|.*\n)+)", text)[1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def functions(path):
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_a_test_that_exists():
    faults = [(fault, test.strip("`")) for fault, test, _ in rows() if not fault.startswith("**")]
    assert len(faults) > 40
    for fault, test in faults:
        path, name = test.split("::")
        assert name in functions(ROOT / "tests" / path), fault


def test_every_fault_of_a_campaign_is_in_the_table():
    named = [name for _, _, names in rows() for name in re.findall(r"`(\w+)`", names)]
    assert sorted(named) == sorted(BY_NAME)
