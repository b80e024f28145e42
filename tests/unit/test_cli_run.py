"""`pool-admin run`: its output for a result, and whole runs with a real daemon whose workers are plain processes."""

import json
import math
import signal
import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pool.cli import answer, run
from pool.cli.admin import app
from pool.model import JobError, JobResult, Outcome, StartKind, Timings
from tests.support.daemons import module_daemon, pool_of

POOL = pool_of(1, 2, limits={"wall_s": 20, "cpu_s": 20, "memory": "256m", "output": "64k", "result": "1m"})


# ---- what is shown of a result ----


def shown(result: JobResult, capsys: pytest.CaptureFixture[str], *, as_json: bool = False) -> tuple[str, str]:
    if not as_json:
        with run._Echo(err=False) as out, run._Echo(err=True) as err:
            out(result.stdout)
            err(result.stderr)
    run._show(result, name="job.py", as_json=as_json)
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_a_job_that_went_well_shows_its_output_and_its_value(capsys):
    result = JobResult(job_id="j", outcome=Outcome.OK, value=[1.5, "a\x1b"], stdout="no line end", stderr="warned\n")
    assert shown(result, capsys) == ("no line end\n[1.5, 'a\\x1b']\n", "warned\n")


def test_the_output_of_a_job_is_passed_on_as_it_is(capsys):
    result = JobResult(job_id="j", outcome=Outcome.OK, stdout="\x1b[31mred\x1b[0m\n\x00")
    assert shown(result, capsys) == ("\x1b[31mred\x1b[0m\n\x00\n", "")


def test_a_job_that_failed_shows_its_traceback_and_then_the_reason(capsys):
    error = JobError(type="ValueError", message="bad", traceback='  File "job.py", line 3\nValueError: bad\x1b[2J\n')
    result = JobResult(
        job_id="j", outcome=Outcome.ERROR, reason="it raised\nan exception", stdout="so far\n", error=error
    )
    assert shown(result, capsys) == (
        "so far\n",
        '  File "job.py", line 3\nValueError: bad\\x1b[2J\nerror: it raised\\nan exception\n',
    )


def test_a_cut_output_is_said_to_be_cut(capsys):
    result = JobResult(job_id="j", outcome=Outcome.OK, stdout="x" * 10, truncated=("stdout",))
    assert shown(result, capsys) == ("xxxxxxxxxx\n", "error: cut at the output limit: stdout\n")


def test_a_result_as_json_keeps_what_json_can_carry_and_the_repr_of_the_value(capsys):
    value = {"sharpe": math.nan, "curve": np.array([1.0, 2.5]), 3: (b"\xff", datetime(2026, 1, 2, tzinfo=UTC)), "z": 1j}
    result = JobResult(
        job_id="j", outcome=Outcome.OK, value=value, files={"a.bin": b"\x00"}, timings=Timings(run_ms=1.5),
        start=StartKind.WARM,
    )  # fmt: skip
    out, err = shown(result, capsys, as_json=True)
    described = json.loads(out, parse_constant=pytest.fail)
    assert err == ""
    assert described["value"] == {
        "sharpe": None,
        "curve": [1.0, 2.5],
        "3": ["/w==", "2026-01-02T00:00:00+00:00"],
        "z": "1j",
    }
    assert described["value_repr"] == repr(value)
    assert described["files"] == {"a.bin": "AA=="}
    assert (described["outcome"], described["start"], described["timings"]["run_ms"]) == ("ok", "warm", 1.5)
    assert {field.name for field in fields(JobResult)} < set(described)


def test_frames_series_and_odd_scalars_become_json(capsys):
    frame = pd.DataFrame({"a": [1, 2]}, index=["x", "y"])
    assert answer.json_value(frame) == {"a": {"x": 1, "y": 2}}
    assert answer.json_value(frame["a"]) == {"x": 1, "y": 2}
    assert answer.json_value(np.int64(3)) == 3
    assert isinstance(answer.json_value(np.longdouble(1)), str)


def test_an_integer_without_end_is_shown_as_what_it_is(capsys):
    result = JobResult(job_id="j", outcome=Outcome.OK, value={10**5000: [10**5000, 7]})
    assert shown(result, capsys)[0].startswith("<dict: Exceeds the limit")
    described = json.loads(shown(result, capsys, as_json=True)[0])
    assert list(described["value"].values()) == [[hex(10**5000), 7]]


# ---- against a real daemon ----


daemon = module_daemon({"default": POOL, "other": POOL})


def test_a_file_is_run_with_arguments_and_its_value_printed(daemon, tmp_path):
    file = tmp_path / "job.py"
    file.write_text(
        "import sys\ndef main(a, *, b):\n    print('out')\n    print('err', file=sys.stderr)\n    return [a, b]\n"
    )
    result = daemon.admin("run", str(file), "--entry", "main", "--arg", "1.5", "--kwarg", 'b={"c": null}')
    assert (result.exit_code, result.stdout, result.stderr) == (0, "out\n[1.5, {'c': None}]\n", "err\n")


def running(daemon, file, **options):
    """`pool-admin run` in a process of its own."""
    command = [sys.executable, "-m", "pool.cli.admin", "--run-dir", str(daemon.run_dir), "run", str(file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def test_what_a_job_prints_is_shown_while_it_runs_and_not_with_json(daemon, tmp_path):
    file = tmp_path / "job.py"
    file.write_text(
        "import os, sys, time\nprint('out')\nprint('err', file=sys.stderr, end='', flush=True)\n"
        f"while not os.path.exists({str(tmp_path / 'go')!r}):\n    time.sleep(0.01)\nresult = 7\n"
    )
    with running(daemon, file, text=True) as process:
        assert process.stdout.readline() == "out\n"  # the job waits for us
        assert process.stderr.read(3) == "err"
        (tmp_path / "go").touch()
        assert process.communicate(timeout=60) == ("7\n", "\n")
    result = json.loads(daemon.admin("run", str(file), "--json").stdout)
    assert (result["stdout"], result["stderr"]) == ("out\n", "err")


def test_a_reader_of_the_output_that_goes_away_ends_the_job(daemon, tmp_path):
    file = tmp_path / "job.py"
    file.write_text("import time\nwhile True:\n    print('more')\n    time.sleep(0.02)\n")
    with running(daemon, file) as process:
        assert process.stdout.readline() == b"more\n"
        process.stdout.close()
        assert process.wait(60) == 1
        assert b"Traceback" not in process.stderr.read()
    daemon.until(lambda: daemon.call("jobs")["jobs"][-1]["outcome"] == "cancelled")


def test_files_arguments_variables_and_a_seed_are_given_and_the_files_that_it_leaves_are_kept(daemon, tmp_path):
    (tmp_path / "note.txt").write_text("given")
    (tmp_path / "job.py").write_text(
        "import random, sys\nopen('out/copy', 'w').write(open('note.txt').read() + open('b').read())\n"
        "print(*sys.argv[1:])\nresult = random.random()\n"
    )
    typed = ["run", tmp_path / "job.py", "--file", tmp_path / "note.txt", "--file", f"b={tmp_path / 'note.txt'}"]
    typed += ["--argv", "--n", "--argv", "3", "--seed", "7", "--out", tmp_path / "left", "--retries", "2"]
    first, second = (daemon.admin(*map(str, typed)) for _ in range(2))
    assert (first.exit_code, first.stdout.splitlines()[0]) == (0, "--n 3")
    assert first.stdout == second.stdout, "the seed decides the random number"
    assert (tmp_path / "left" / "copy").read_text() == "givengiven"
    refused = daemon.admin("run", str(tmp_path / "job.py"), "--env", "FREE=1")
    assert (refused.exit_code, "does not let a job set 'FREE'" in refused.stderr) == (1, True)


@pytest.mark.parametrize("typed", [["--file", "absent"], ["--file", "x=absent"], ["--env", "NAME"], ["--seed", "x"]])
def test_what_cannot_be_given_to_a_job_is_a_usage_error(daemon, typed):
    assert daemon.admin("run", "-", *typed, stdin="pass").exit_code == 2


def test_a_hint_of_a_job_that_is_ok_is_shown(daemon):
    result = daemon.admin("run", "-", stdin="def main(): return 1\n")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "never calls it" in result.stderr


def test_a_script_is_read_from_stdin_and_its_input_from_a_file(daemon, tmp_path):
    (tmp_path / "input").write_text("41")
    script = "import sys\nresult = int(sys.stdin.read()) + 1\n"
    result = daemon.admin("run", "-", "--stdin", str(tmp_path / "input"), "--pool", "other", stdin=script)
    assert (result.exit_code, result.stdout) == (0, "42\n"), result.stderr


@pytest.mark.parametrize(
    ("script", "last_line"),
    [
        ("print('so far')\nraise ValueError('bad')", "error: "),
        ("print('so far'\n", "error: "),
        ("print('so far', flush=True)\nwhile True: pass", "timeout: "),
    ],
)
def test_a_job_that_does_not_end_ok_is_explained_and_ends_1(daemon, script, last_line):
    wall_s = "1" if last_line.startswith("timeout") else "20"
    result = daemon.admin("run", "-", "--wall", wall_s, stdin=script)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(last_line), result.stderr
    as_json = daemon.admin("run", "-", "--wall", wall_s, "--json", stdin=script)
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["outcome"] == last_line.partition(":")[0]


def test_the_traceback_of_the_job_goes_to_stderr(daemon):
    result = daemon.admin("run", "-", stdin="def f():\n    raise ValueError('no price')\nf()\n")
    assert "line 2, in f" in result.stderr
    assert "ValueError: no price" in result.stderr
    assert result.stdout == ""
    assert "SyntaxError" in daemon.admin("run", "-", stdin="print('so far'\n").stderr


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--pool", "nope"], "unknown_pool"),
        (["--memory", "64g"], "limit_exceeded"),
        (["--memory", "much"], "invalid_job"),
        (["--wall", "-1"], "invalid_job"),
    ],
)
def test_a_job_that_is_refused_is_an_error_with_its_code(daemon, options, code):
    result = daemon.admin("run", "-", *options, "--json", stdin="result = 1")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == code
    in_words = daemon.admin("run", "-", *options, stdin="result = 1")
    assert in_words.stderr.startswith("error: ")
    assert in_words.stderr.count("\n") == 1


def test_a_job_for_a_daemon_that_is_not_there_ends_3(tmp_path):
    typed = ["--run-dir", str(tmp_path), "run", "-", "--json"]
    result = CliRunner().invoke(app, typed, input="result = 1", catch_exceptions=False)
    assert result.exit_code == 3
    assert json.loads(result.stdout)["error"]["code"] == "unreachable"


def test_ctrl_c_cancels_the_job_and_ends_130(daemon, tmp_path):
    file = tmp_path / "endless.py"
    file.write_text("while True: pass\n")
    with running(daemon, file) as process:
        daemon.until(lambda: any(job["state"] == "running" for job in daemon.call("jobs")["jobs"]))
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in stderr
    daemon.until(lambda: daemon.call("jobs")["jobs"][-1]["outcome"] == "cancelled")


def test_every_command_has_its_answer_from_a_real_daemon(daemon, tmp_path):
    job_id = json.loads(daemon.admin("run", "-", "--json", stdin="result = 1").stdout)["job_id"]
    status = daemon.admin("status")
    assert status.exit_code == 0, status.output
    assert "default" in status.stdout
    assert json.loads(daemon.admin("status", "--json").stdout)["daemon"]["run_dir"] == str(daemon.run_dir)
    worker = json.loads(daemon.admin("workers", "--pool", "other", "--json").stdout)["workers"][0]["id"]
    assert worker in daemon.admin("workers").stdout
    assert job_id in daemon.admin("jobs").stdout
    assert "ok" in daemon.admin("job", job_id).stdout
    assert "other" in daemon.admin("recycle", "--worker", worker, "--json").stdout
    assert "other" in daemon.admin("resize", "other", "--min", "1", "--max", "1").stdout
    for order in (["drain", "other"], ["resume", "other"], ["cancel", job_id]):
        assert daemon.admin(*order).exit_code == 0, order
    assert daemon.admin("resize", "other", "--min", "3", "--max", "1").exit_code == 1
    assert daemon.admin("cancel", "nope").exit_code == 1


def test_a_draining_pool_refuses_a_job_until_it_is_resumed(daemon):
    assert daemon.admin("drain", "other").exit_code == 0
    result = daemon.admin("run", "-", "--pool", "other", "--json", stdin="result = 1")
    assert json.loads(result.stdout)["error"]["code"] == "draining"
    assert daemon.admin("resume", "other").exit_code == 0
    assert daemon.admin("run", "-", "--pool", "other", stdin="result = 1").stdout == "1\n"
