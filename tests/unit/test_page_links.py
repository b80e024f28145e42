"""The pages for readers: each link, and each test, exception and fault that they name, is there, and no other one."""

import ast
import re
from pathlib import Path

import pytest

import pool.client
from pool import errors
from tests.chaos.faults import BY_NAME

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("[a-z]*/README.md")])
_LINK = re.compile(r"\]\((?!https?:)([^()\s#]*)(?:#([\w-]+))?\)")


def headings(page):
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", each.lower()).strip().replace(" ", "-") for each in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_to_a_file_and_a_heading(page):
    for target, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        place = page.parent / target if target else page
        assert place.exists(), target
        assert not anchor or anchor in headings(place), f"{target}#{anchor}"


def test_each_test_that_the_page_on_security_names_exists():
    tests = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text(encoding="utf-8")))
    assert len(named) > 10
    assert [name for name in sorted(named) if f"def {name}(" not in tests] == []


# ---- docs/jobs.md ----


def test_the_guide_lists_every_exception_of_the_tree_and_no_other():
    kinds = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.PoolError)
    }
    table = (ROOT / "docs/jobs.md").read_text().partition("## Exceptions")[2]
    listed = {name for line in table.splitlines() for name in re.findall(r"`(\w+Error)`", line)}
    assert listed - {"TimeoutError"} == kinds


def test_the_client_offers_its_exceptions_under_the_same_names():
    for name in ("BatchError", "ExecutorClosedError", "JobOutcomeError"):
        assert getattr(pool.client, name) is getattr(errors, name)


# ---- docs/faults.md ----


def rows_of_faults():
    """The cells of the table, without its head."""
    text = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    table = re.search(r"\| fault \| test \| in the campaign \|\n\|[-|]+\n((?:\|.*\n)+)", text)[1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def functions(path):
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_a_test_that_exists():
    faults = [(fault, test.strip("`")) for fault, test, _ in rows_of_faults() if not fault.startswith("**")]
    assert len(faults) > 40
    for fault, test in faults:
        path, name = test.split("::")
        assert name in functions(ROOT / "tests" / path), fault


def test_every_fault_of_a_campaign_is_in_the_table():
    named = [name for _, _, names in rows_of_faults() for name in re.findall(r"`(\w+)`", names)]
    assert sorted(named) == sorted(BY_NAME)
