"""The table of attacks: newest record, natural order, screen on and off side by side, and nothing that breaks the page."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import pytest

from tests.hostile import table
from tests.hostile.record import Entry


def entry(number="B1", title="fork bomb", outcome="KILL", **more):
    fields = {"stopped_by": ("limits",), "seen": "EAGAIN", "outside": ""} | more
    return Entry(number, title, outcome, **fields)


def lines(entries):
    return [line for line in table.render(entries).splitlines() if line.startswith("| ")]


def test_attacks_are_in_the_natural_order_of_their_numbers():
    shown = table.rows([entry(number) for number in ("B10", "F1", "B", "B9", "A2", "A12", "B1")])
    assert [row.number for row in shown] == ["A2", "A12", "B1", "B9", "B10", "B", "F1"]


def test_an_attack_with_the_screen_on_and_off_is_one_line():
    on = entry("A1", "walk", "REJ", stopped_by=("screen",), seen="S301", screen_off=False)
    off = entry("A1", "walk", "INERT", stopped_by=("landlock", "job filter"), seen="2", outside="it works")
    _, _, line = lines([on, off])
    assert line == "| A1 | walk | refused S301 | inert | job filter, landlock | 2 | it works |"


def test_an_attack_that_was_tried_one_way_only_has_an_empty_place():
    _, _, line = lines([entry("A1", "walk", "REJ", stopped_by=("screen",), seen="S301", screen_off=False)])
    assert line == "| A1 | walk | refused S301 |  |  | S301 |  |"


def test_the_newest_record_of_an_attack_counts(tmp_path):
    for age, outcome in ((10, "KILL"), (20, "ERR")):
        path = tmp_path / f"{100 - age}.json"
        path.write_text(json.dumps([asdict(entry(outcome=outcome))]))
        os.utime(path, (age, age))
    assert [each.outcome for each in table.newest(tmp_path.iterdir())] == ["ERR"]


@pytest.mark.parametrize(
    "nasty", ["a | b", "two\nlines", "\x1b[2J", "<script>", "<!-- /catalogue -->", "`x`", "\u202e"]
)
def test_what_an_attack_saw_stays_in_its_cell(nasty):
    _, _, line = lines([entry(seen=nasty)])
    assert line.isprintable()
    assert line.replace("\\|", "").count("|") == 7
    assert "<" not in line.replace("\\<", "")


def test_numbers_that_no_test_recorded_are_named():
    missing = table.without_record([entry("A1"), entry("B41")])
    assert "A1" not in missing
    assert "B41" not in missing
    assert "A2" in missing
    assert "A8" not in missing  # not in the catalogue
    assert len(missing) == 163
    assert table.render([]).strip().startswith("Numbers without a record: A1, A2,")


def test_writing_changes_what_is_between_the_markers_only_and_twice_is_once():
    page = f"# Before\n\n{table.BEGIN}\nold\n{table.END}\n\nafter\n"
    once = table.put(page, table.render([entry()]))
    assert once.startswith("# Before\n")
    assert once.endswith("after\n")
    assert "old" not in once
    assert table.put(once, table.render([entry()])) == once


def test_a_page_without_markers_is_left_alone(tmp_path):
    with pytest.raises(SystemExit, match="has no"):
        table.put("# Page\n", "table")


def test_check_tells_a_page_that_is_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "DIRECTORY", tmp_path)
    monkeypatch.setattr(table, "CATALOGUE", {"B": "1"})
    (tmp_path / "1.json").write_text(json.dumps([asdict(entry())]))
    page = tmp_path / "security.md"
    assert table.main(["--write", str(page)]) == 0
    assert table.main(["--check", str(page)]) == 0
    (tmp_path / "1.json").write_text(json.dumps([asdict(entry(outcome="ERR"))]))
    assert table.main(["--check", str(page)]) == 1
    assert "1 attacks; without a record: none" in capsys.readouterr().err
