"""pool-admin check: files in, findings out, no daemon."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pool.cli.admin import app

CONFIG = """\
pools:
  default: {}
  narrow: {screen: {mode: strict, allow_modules: [os]}}
  free: {screen: off}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text("import os\nx = 1\n")
    return path


def check(*arguments: object, given: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, arguments)], input=given)


def config(tmp_path: Path) -> Path:
    path = tmp_path / "pool.yaml"
    path.write_text(CONFIG)
    return path


def test_a_finding_is_a_line_that_an_editor_can_jump_to(source):
    result = check(source)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{source}:1:8: S101 this pool does not allow the module os; ")
    assert result.stdout.count("\n") == 1


def test_a_file_without_findings_prints_nothing_and_ends_0(source):
    source.write_text("import math\n")
    result = check(source)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_stdin_and_a_byte_order_mark_are_read():
    assert check("-", given=b"\xef\xbb\xbfimport math\n").exit_code == 0
    assert check("-", given=b"import os\n").stdout.startswith("<stdin>:1:8: S101 ")


def test_json_has_the_findings_as_data(source):
    result = check(source, "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["syntax_error"] is None
    (found,) = answer["findings"]
    assert (found["rule"], found["line"], found["column"]) == ("S101", 1, 8)
    assert found["reason"]
    assert found["remedy"]


def test_what_is_no_python_is_said_with_its_place(source):
    source.write_text("x = (\n")
    result = check(source)
    assert result.exit_code == 1
    assert result.stdout == f"{source}:1:5: SyntaxError '(' was never closed\n"
    assert json.loads(check(source, "--json").stdout)["syntax_error"]["line"] == 1


def test_strict_refuses_what_standard_allows(source):
    source.write_text("import threading\n")
    assert check(source).exit_code == 0
    assert check(source, "--screen", "strict").exit_code == 1


def test_the_policy_of_a_pool_is_taken_from_the_configuration(source, tmp_path):
    path = config(tmp_path)
    assert check(source, "--config", path).exit_code == 1
    assert check(source, "--config", path, "--pool", "narrow").exit_code == 0
    assert check(source, "--config", path, "--pool", "free").exit_code == 0
    assert check(source, "--config", path, "--pool", "free", "--screen", "standard").exit_code == 1


@pytest.mark.parametrize(
    "arguments", [["--screen", "off"], ["--pool", "x"], ["--pool", "x", "--config", "CONFIG"], ["--config", "/nowhere"]]
)
def test_wrong_usage_ends_2_and_says_what_is_wrong(source, tmp_path, arguments):
    path = str(config(tmp_path))
    result = check(source, *(path if word == "CONFIG" else word for word in arguments))
    assert result.exit_code == 2
    assert "Invalid value" in result.stderr


def test_a_configuration_that_is_not_valid_is_an_error(source, tmp_path):
    (tmp_path / "bad.yaml").write_text("pools: 3\n")
    result = check(source, "--config", tmp_path / "bad.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


# ---- config check ----


def test_a_valid_configuration_is_named_with_its_pools(tmp_path):
    path = config(tmp_path)
    result = CliRunner().invoke(app, ["config", "check", str(path)])
    assert (result.exit_code, result.stdout) == (0, f"{path} is valid; pools: default, narrow, free\n")
    as_json = CliRunner().invoke(app, ["config", "check", str(path), "--json"])
    assert json.loads(as_json.stdout) == {"file": str(path), "pools": ["default", "narrow", "free"]}


def test_each_problem_of_a_configuration_is_a_line_with_its_place(tmp_path):
    (tmp_path / "bad.yaml").write_text("pools:\n  a: {size: {min: 0}}\n  b: {scren: off}\n")
    result = CliRunner().invoke(app, ["config", "check", str(tmp_path / "bad.yaml")])
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first.endswith("bad.yaml:2: pools.a.size.min: got 0; allowed: a whole number from 1 to 256")
    assert "bad.yaml:3: pools.b.scren: unknown key; did you mean screen?" in second
    as_json = CliRunner().invoke(app, ["config", "check", str(tmp_path / "bad.yaml"), "--json"])
    assert len(json.loads(as_json.stdout)["error"]["problems"]) == 2
