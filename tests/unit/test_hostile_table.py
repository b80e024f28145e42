"""The table of attacks in docs/security.md: newest record, natural order, and escaped text."""

import json
import os
from dataclasses import asdict

import pytest

from tests.hostile import table
from tests.hostile.record import Entry


def entry(number="B1", title="fork bomb", outcome="KILL", **more):
    fields = {"stopped_by": ("limits",), "seen": "EAGAIN", "outside": ""} | more
    return Entry(number, title, outcome, **fields)


def test_an_attack_with_the_screen_on_and_off_is_one_line():
    on = entry("A1", "walk", "REJ", stopped_by=("screen",), seen="S301", screen_off=False)
    off = entry("A1", "walk", "INERT", stopped_by=("landlock", "job filter"), seen="a | <b>\n", outside="it works")
    line = table.render([on, off]).splitlines()[2]
    assert line == r"| A1 | walk | refused S301 | inert | job filter, landlock | a \| \<b\>\\n | it works |"


def test_the_newest_record_of_an_attack_counts(tmp_path):
    for age, outcome in ((10, "KILL"), (20, "ERR")):
        path = tmp_path / f"{100 - age}.json"
        path.write_text(json.dumps([asdict(entry(outcome=outcome))]))
        os.utime(path, (age, age))
    assert [each.outcome for each in table.newest(tmp_path.iterdir())] == ["ERR"]


def test_exactly_the_numbers_that_no_test_recorded_are_named():
    numbers = table.numbers()
    recorded = [entry(number) for number in numbers if number not in {"A2", "C45"}]
    assert table.without_record(recorded) == ["A2", "C45"]
    assert table.without_record([entry(number) for number in numbers]) == []


def test_a_page_that_is_behind_the_records_fails_the_check(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "DIRECTORY", tmp_path)
    monkeypatch.setattr(table, "CATALOGUE", {"B": "1"})
    (tmp_path / "1.json").write_text(json.dumps([asdict(entry())]))
    page = tmp_path / "security.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    assert table.main(["--write", str(page)]) == 0
    assert table.main(["--check", str(page)]) == 0
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")
    (tmp_path / "1.json").write_text(json.dumps([asdict(entry(outcome="ERR"))]))
    assert table.main(["--check", str(page)]) == 1
    with pytest.raises(SystemExit, match="has no"):
        table.put("# Page\n", "table")
