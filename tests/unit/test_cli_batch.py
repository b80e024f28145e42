"""`pool-admin run` of a directory: against a real daemon whose workers are plain processes."""

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pool.cli.admin import app
from tests.support.daemons import module_daemon, pool_of

POOL = pool_of(
    2, limits={"wall_s": 60, "cpu_s": 20, "memory": "256m", "output": "64k", "result": "1m"}, backlog={"max_jobs": 5}
)


daemon = module_daemon({"default": POOL})


@pytest.fixture
def programs(tmp_path):
    """A function that writes programs into a directory; the directory."""

    def write(**sources):
        for name, text in sources.items():
            (tmp_path / f"{name}.py").write_text(text)
        return tmp_path

    return write


def table(text):
    """{name of the file: rest of its line} of the table at the end."""
    lines = text.partition("FILE")[2].splitlines()[1:]
    return {os.path.basename(line.split()[0]): " ".join(line.split()[1:]) for line in lines}


def test_every_python_file_of_a_directory_is_run_and_the_table_tells_how_it_ended(daemon, programs):
    place = programs(
        good="print('x')", bad="def f():\n    raise ValueError('no\\x1b[2J')\nf()", slow="while True: pass"
    )
    (place / "notes.txt").write_text("no program")
    result = daemon.admin("run", place, "--wall", "5")
    assert result.exit_code == 1
    seen = table(result.stdout)
    assert list(seen) == ["bad.py", "good.py", "slow.py"]
    assert seen["bad.py"].startswith("error ")
    assert seen["bad.py"].endswith("ValueError: no\\x1b[2J")
    assert seen["good.py"].startswith("ok ")
    assert seen["slow.py"].startswith("timeout ")
    lines = result.stdout.partition("FILE")[0].splitlines()
    assert sorted(line.split()[0] for line in lines) == ["error", "ok", "timeout"]


def test_a_program_that_ran_out_of_memory_is_told_with_its_limit_and_not_with_an_empty_message(daemon, programs):
    result = daemon.admin("run", programs(hog="held = bytearray(1 << 40)"), programs(), "--memory", "64m")
    assert str(64 << 20) in table(result.stdout)["hog.py"]


def test_more_files_than_the_pool_has_room_for_are_all_run(daemon, programs):
    place = programs(**{f"n{number:03}": f"result = {number}" for number in range(60)})
    result = daemon.admin("run", place, "--json")
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {os.path.basename(row["file"]): row["value"] for row in rows} == {f"n{n:03}.py": n for n in range(60)}


def test_several_files_share_entry_and_arguments_and_a_refused_one_stands_among_them(daemon, programs):
    place = programs(one="def main(x): return x", two="def main(x): return -x", none="")
    (place / "large.py").write_text("#" * (17 << 20))
    files = [place / f"{name}.py" for name in ("one", "two", "large", "none")]
    result = daemon.admin("run", *files, "--entry", "main", "--arg", "3", "--json")
    assert result.exit_code == 1
    rows = {os.path.basename(row["file"]): row for row in map(json.loads, result.stdout.splitlines())}
    assert (rows["one.py"]["value"], rows["two.py"]["value"]) == (3, -3)
    assert (rows["large.py"]["outcome"], rows["large.py"]["error"]["type"]) == ("rejected", "TooLargeError")
    assert rows["none.py"]["outcome"] == "error"


def test_a_directory_without_programs_and_a_file_that_is_not_there_are_wrong_usage(daemon, programs):
    place = programs(one="result = 1")
    (place / "empty").mkdir()
    for wrong in ([place / "empty"], [place / "one.py", place / "two.py"], [place / "absent.py"]):
        result = daemon.admin("run", *wrong)
        assert result.exit_code == 2
        assert "FILE" in result.stderr


def test_a_daemon_that_is_not_there_is_one_json_line(daemon, programs, tmp_path):
    place = programs(one="result = 1")
    result = CliRunner().invoke(app, ["--run-dir", str(tmp_path / "no"), "run", str(place), "--json"])
    assert result.exit_code == 3
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["error"]["code"] == "unreachable"


def command(daemon, place):
    return [sys.executable, "-m", "pool.cli.admin", "--run-dir", str(daemon.run_dir), "run", str(place)]


def test_a_terminal_shows_a_bar_and_then_the_table(daemon, programs):
    place = programs(**{f"n{number}": f"result = 1 / {number}" for number in range(4)})
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50"}
    process = subprocess.Popen(command(daemon, place), stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    while chunk := read(ours):
        seen += chunk
    os.close(ours)
    text = seen.decode()
    assert process.wait(60) == 1
    assert "4/4" in text
    assert "1 not ok" in text
    assert "ZeroDivisionError" in text.partition("FILE")[2]


def read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


def test_ctrl_c_ends_all_that_is_left(daemon, programs):
    place = programs(**{f"n{number}": "import time; time.sleep(50)" for number in range(4)})
    process = subprocess.Popen(command(daemon, place), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        daemon.until(lambda: daemon.pool()["running"] == 2 and daemon.pool()["backlog"] == 2)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in stderr
    daemon.until(lambda: daemon.pool()["running"] == 0 and daemon.pool()["backlog"] == 0)
    assert [job["outcome"] for job in daemon.call("jobs")["jobs"][-4:]] == ["cancelled"] * 4


SCORES = {"a_low": "result = 1.5", "b_high": "result = 20", "c_none": "print(1)", "d_bad": "raise ValueError('a\\nb')"}


def order(text):
    return [line.split()[0].rpartition("/")[2] for line in text.partition("FILE")[2].splitlines()[1:]]


def test_the_table_has_the_values_and_can_be_sorted_by_them(daemon, programs):
    place = programs(**SCORES)
    result = daemon.admin("run", place, "--sort", "value")
    assert order(result.stdout) == ["b_high.py", "a_low.py", "c_none.py", "d_bad.py"]
    seen = table(result.stdout)
    assert seen["a_low.py"].startswith("ok 1.5 ")
    assert seen["d_bad.py"].endswith("ValueError: a"), "the first line of the error"
    assert order(daemon.admin("run", place, "--sort", "outcome").stdout)[0] == "d_bad.py"
    slow = programs(e_slow="import time; time.sleep(2)")
    assert order(daemon.admin("run", slow, "--sort", "time").stdout)[0] == "e_slow.py"


def test_csv_is_the_table_and_nothing_else(daemon, programs):
    result = daemon.admin("run", programs(**SCORES), "--csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert list(rows[0]) == ["file", "outcome", "value", "run_ms", "cpu_s", "why"]
    assert [(os.path.basename(row["file"]), row["outcome"], row["value"]) for row in rows] == [
        ("a_low.py", "ok", "1.5"),
        ("b_high.py", "ok", "20"),
        ("c_none.py", "ok", ""),
        ("d_bad.py", "error", ""),
    ]
    assert float(rows[0]["run_ms"]) >= 0
    assert daemon.admin("run", programs(), "--csv", "--json").exit_code == 2


def test_each_program_leaves_its_files_in_a_directory_of_its_own(daemon, programs, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    leave = (
        "import pathlib, sys\npathlib.Path('out/sub').mkdir()\npathlib.Path('out/sub/x.txt').write_text(sys.argv[1])"
    )
    place = programs(one=leave, two=leave)
    assert daemon.admin("run", place, "--out", out, "--argv", "said").exit_code == 0
    assert [(out / name / "sub/x.txt").read_text() for name in ("one", "two")] == ["said", "said"]
    (place / "more").mkdir()
    (place / "more" / "one.py").write_text("pass")
    refused = daemon.admin("run", place, place / "more", "--out", out)
    assert (refused.exit_code, "several programs are named 'one'" in refused.stderr) == (2, True)
