"""`pool-admin run --local`, without a daemon."""

import json

import pytest
from typer.testing import CliRunner

from pool.cli.admin import app

JOB = "import sys\nprint('printed')\ndef main(x):\n    return x * 2"


def typed(tmp_path, *words, code=JOB):
    (tmp_path / "job.py").write_text(code)
    result = CliRunner().invoke(
        app, ["--run-dir", str(tmp_path / "none"), "run", "--local", str(tmp_path / "job.py"), *words]
    )
    if "no_lockdown" in result.stderr or "refuses a part of the lockdown" in result.stderr:
        pytest.skip(result.stderr)
    return result


def test_a_file_is_run_without_a_daemon(tmp_path):
    result = typed(tmp_path, "--entry", "main", "--arg", "21")
    assert (result.exit_code, result.stdout) == (0, "printed\n42\n"), result.stderr


def test_a_job_that_does_not_end_ok_is_explained_and_ends_1(tmp_path):
    result = typed(tmp_path, "--json", code="import subprocess")
    assert (result.exit_code, json.loads(result.stdout)["outcome"]) == (1, "rejected")


def test_what_belongs_to_a_pool_is_a_usage_error(tmp_path):
    for words in (["--pool", "other"], ["--retries", "1"], [str(tmp_path / "job.py")]):
        assert typed(tmp_path, *words).exit_code == 2
