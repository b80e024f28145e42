"""The commands of pool-admin against a real ZeroMQ ROUTER that plays the daemon's admin socket."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pool._version import __version__
from pool.cli.admin import app
from pool.cli.answer import Address, resolve
from tests.support.process import python
from tests.unit.fake_admin import AdminSocket, Refusal, a_pool, a_snapshot, a_worker, admin, admin_process, row

HEAVY = ["rich", "docker", "numpy", "pandas", "yaml", "structlog"]
if not any(name.startswith("pydantic") for name in requires("typer") or []):
    HEAVY.append("pydantic")  # from 0.29 on, typer itself imports it for its options


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[AdminSocket]:
    with closing(AdminSocket(tmp_path / "admin.sock")) as fake:
        yield fake


# ---- questions and orders ----


def test_workers_json_names_the_pool_of_each_worker(daemon):
    daemon.answers["status"] = lambda _: a_snapshot(a_pool(), a_pool(name="other", workers=[a_worker(id="o-1")]))
    assert json.loads(admin(daemon, "workers", "--pool", "other", "--json").stdout) == {
        "workers": [{"pool": "other", **a_worker(id="o-1")}]
    }
    assert len(json.loads(admin(daemon, "workers", "--json").stdout)["workers"]) == 4


def test_workers_of_a_pool_that_is_not_there_is_an_error_that_names_the_pools(daemon):
    daemon.answers["status"] = lambda _: a_snapshot()
    result = admin(daemon, "workers", "--pool", "defualt")
    assert result.exit_code == 1
    assert result.stderr == "error: there is no pool 'defualt'; the pools are: default\n"


@pytest.mark.parametrize(
    ("typed", "call"),
    [
        (["drain"], ("drain", {})),
        (["drain", "a"], ("drain", {"pool": "a"})),
        (["resume", "a"], ("resume", {"pool": "a"})),
        (["recycle"], ("recycle", {})),
        (["recycle", "a", "--worker", "w-1"], ("recycle", {"pool": "a", "worker": "w-1"})),
        (["resize", "a", "--min", "0", "--max", "4"], ("resize", {"pool": "a", "min": 0, "max": 4})),
        (["cancel", "j-1"], ("cancel", {"job": "j-1"})),
    ],
)
def test_an_order_is_passed_on_and_its_text_or_json_printed(daemon, typed, call):
    answer = {"pools": ["a"], "text": "as you wish"}
    daemon.answers[call[0]] = lambda _: answer
    result = admin(daemon, *typed)
    assert (result.exit_code, result.stdout) == (0, "as you wish\n")
    assert daemon.calls == [call]
    assert json.loads(admin(daemon, *typed, "--json").stdout) == answer


def test_jobs_are_listed(daemon):
    done = a_job(1, id="j-1", client="uid:0", age_s=3700, worker="w")
    queued = a_job(2, id="j-2", state="queued", outcome=None, client=None, age_s=1, worker=None)
    answer = {"jobs": [done, queued], "total": 1200}
    daemon.answers["jobs"] = lambda _: answer
    result = admin(daemon, "jobs", "--pool", "default")
    assert result.exit_code == 0
    assert " ".join(row(result.stdout, "j-1")) == "j-1 default done ok 1h 1m w uid:0"
    assert " ".join(row(result.stdout, "j-2")) == "j-2 default queued - 1s - -"
    assert result.stdout.endswith("\n1198 older jobs are not shown; see --last\n")
    assert daemon.calls == [("jobs", {"pool": "default"})]
    assert json.loads(admin(daemon, "jobs", "--json").stdout) == answer


def a_job(number, **changes):
    made = {"id": f"{number:032x}", "pool": "default", "state": "done", "outcome": "ok", "client": "0"}
    return made | {"age_s": 1000.0 - number, "worker": "default-1"} | changes


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ([], list(range(49, 29, -1))),
        (["--last", "2"], [49, 48]),
        (["--state", "error"], [7]),
        (["--state", "queued"], [8]),
        (["--client", "1000"], [9]),
        (["--client", "root", "--last", "1"], [49]),
        (["--since", "953s"], [49, 48, 47]),
        (["--since", "16m", "--state", "ok", "--last", "1"], [49]),
    ],
)
def test_jobs_are_listed_newest_first_twenty_of_them_or_as_the_options_say(daemon, options, numbers):
    changes = {7: {"outcome": "error"}, 8: {"state": "queued", "outcome": None}, 9: {"client": "1000"}}
    jobs = [a_job(number, **changes.get(number, {})) for number in range(50)]
    daemon.answers["jobs"] = lambda _: {"jobs": jobs, "total": 50}
    shown = admin(daemon, "jobs", *options).stdout.splitlines()
    assert [line.split()[0] for line in shown if line[0] == "0"] == [f"{number:032x}" for number in numbers]
    as_json = json.loads(admin(daemon, "jobs", *options, "--json").stdout)["jobs"]
    assert as_json == ([jobs[number] for number in numbers] if options else jobs)


@pytest.mark.parametrize("options", [["--state", "don"], ["--since", "yesterday"], ["--client", "no-such-user"]])
def test_a_filter_that_cannot_be_is_wrong_usage(daemon, options):
    result = admin(daemon, "jobs", *options)
    assert result.exit_code == 2
    assert options[1] in result.stderr
    assert daemon.calls == []


@pytest.mark.parametrize(("command", "call", "argument"), [("job", "history", "id"), ("cancel", "cancel", "job")])
def test_the_beginning_of_an_id_is_enough_where_it_is_the_only_one(daemon, command, call, argument):
    known = {"0123456789ab", "0123ffffffff", "default-7f3a-1"}

    def about(arguments):
        if arguments[argument] not in known:
            return Refusal("unknown_job", "there is no such job")
        return {"id": arguments[argument], "entries": [], "text": "done"}

    daemon.answers[call] = about
    daemon.answers["jobs"] = lambda _: {"jobs": [a_job(0, id=each) for each in known if "-" not in each], "total": 2}
    daemon.answers["status"] = lambda _: a_snapshot(a_pool(workers=[a_worker()]))
    assert admin(daemon, command, "01234").exit_code == 0
    assert daemon.calls[-1] == (call, {argument: "0123456789ab"})
    assert admin(daemon, command, "default").exit_code == 0
    assert daemon.calls[-1] == (call, {argument: "default-7f3a-1"})
    several = admin(daemon, command, "0123")
    assert several.exit_code == 1
    assert several.stderr == "error: 2 ids begin with '0123': 0123456789ab, 0123ffffffff; give more characters\n"
    assert admin(daemon, command, "9").stderr == "error: there is no such job\n"


def test_the_history_of_a_job_counts_from_its_first_entry(daemon):
    answer = {
        "id": "uid:0/j-1",
        "pool": "default",
        "entries": [
            {"age_s": 7.5, "state": "queued", "what": "accepted from uid 0", "cause": "client 0"},
            {"age_s": 7.25, "state": "leased", "what": "to w-1", "cause": "submit"},
        ],
    }
    daemon.answers["history"] = lambda _: answer
    result = admin(daemon, "job", "j-1")
    assert result.exit_code == 0
    assert "uid:0/j-1  default" in result.stdout
    assert [line.split() for line in result.stdout.splitlines()[2:]] == [
        ["+0.000", "queued", "accepted", "from", "uid", "0", "(root)", "uid", "0", "(root)"],
        ["+0.250", "leased", "to", "w-1", "submit"],
    ]
    assert json.loads(admin(daemon, "job", "j-1", "--json").stdout) == answer
    assert daemon.calls[0] == ("history", {"id": "j-1"})


def test_an_unknown_job_is_an_error_with_its_code(daemon):
    daemon.answers["history"] = lambda _: Refusal("unknown_job", "there is no job 'j-9'")
    daemon.answers["jobs"] = lambda _: {"jobs": [], "total": 0}
    daemon.answers["status"] = lambda _: a_snapshot()
    result = admin(daemon, "job", "j-9", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert (error["code"], error["message"]) == ("unknown_job", "there is no job 'j-9'")


def test_watch_prints_one_json_object_a_line_until_the_daemon_fails(daemon):
    answers = iter([a_snapshot(), a_snapshot(), Refusal("pool", "enough")])
    daemon.answers["status"] = lambda _: next(answers)
    result = admin(daemon, "status", "--watch", "0.1", "--json")
    first, second, rest = result.stdout.split("\n", 2)
    assert json.loads(first) == json.loads(second) == a_snapshot()
    assert json.loads(rest)["error"]["message"] == "enough"
    assert result.exit_code == 1


def test_an_image_cannot_be_built_without_an_engine(tmp_path):
    result = admin_process("image", "build", "--json", DOCKER_HOST=f"unix://{tmp_path}/no-docker.sock")
    assert result.returncode == 1
    assert json.loads(result.stdout)["error"]["code"] == "engine_unavailable"


# ---- exit status ----


def test_an_unreachable_daemon_ends_3_within_its_timeout(tmp_path):
    missing = f"ipc://{tmp_path}/none.sock"
    result = admin_process("--endpoint", missing, "status")
    assert result.returncode == 3
    assert "none.sock" in result.stderr
    assert result.stderr.startswith("error: ")
    as_json = admin_process("--endpoint", missing, "status", "--json")
    assert as_json.returncode == 3
    assert json.loads(as_json.stdout)["error"]["code"] == "unreachable"


@pytest.mark.parametrize(
    "typed",
    [
        ["nonsense"],
        ["resize", "a"],
        ["resize", "a", "--min", "one", "--max", "2"],
        ["status", "--watch", "0"],
        ["run", "/no/such/file.py"],
        ["run", "-", "--arg", "not json"],
        ["run", "-", "--kwarg", "novalue"],
        ["run", "-", "--kwarg", "a=nope"],
        ["run", "-", "--stdin", "-"],
        ["image", "build", "--requirements", "/no/such/file"],
        ["image", "build", "--profile", "sciense"],
        ["image", "build", "--python", "3.9"],
        ["image", "build", "--profile", "science", "--requirements", "/dev/null"],
    ],
)
def test_wrong_usage_ends_2(typed):
    result = CliRunner().invoke(app, typed, input="x = 1\n")
    assert result.exit_code == 2, result.output
    assert result.stdout == ""


def test_the_help_documents_every_exit_status():
    text = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
    for status in ("0 ok", "1 error", "2 wrong usage", "3 the daemon is unreachable", "4 degraded", "130 interrupted"):
        assert status in text


def test_the_help_breaks_lines_only_where_the_terminal_ends(monkeypatch):
    """Else the line ends of a docstring leave lines of one word."""
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    lines = [line.strip() for line in CliRunner().invoke(app, ["run", "--help"]).stdout.splitlines()]
    paragraph = lines[lines.index(next(line for line in lines if line.startswith("stdout gets"))) :]
    whole = paragraph[: paragraph.index("") - 1]
    assert min(map(len, whole)) > 60, whole


def test_ctrl_c_ends_130(daemon):
    asked = threading.Event()

    def answer(_: dict[str, Any]) -> object:
        asked.set()
        return a_snapshot()

    daemon.answers["status"] = answer
    process = subprocess.Popen(
        [sys.executable, "-m", "pool.cli.admin", "--endpoint", daemon.endpoint, "status", "--watch", "30"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert asked.wait(60)
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(2)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in stderr


# ---- start-up cost ----


def test_status_json_imports_no_heavy_library(daemon):
    daemon.answers["status"] = lambda _: a_snapshot()
    program = f"""
import sys
from pool.cli import admin
sys.argv = ["pool-admin", "--endpoint", {daemon.endpoint!r}, "status", "--json"]
try:
    admin.main()
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = python("-c", program)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == a_snapshot()
    assert done.stderr == "[]\n"


# ---- where the daemon is ----


def test_jobs_go_to_the_daemon_whose_admin_socket_was_typed():
    assert resolve(None, None) == Address()
    assert resolve(None, "/r/") == Address(admin="/r/admin.sock", submit="/r/submit.sock")
    assert resolve("ipc:///x/admin.sock", "/r") == Address(admin="ipc:///x/admin.sock", submit="ipc:///x/submit.sock")


def test_the_run_directory_is_taken_from_the_environment(daemon, tmp_path):
    daemon.answers["status"] = lambda _: a_snapshot()
    assert admin_process("status", POOL_RUN_DIR=str(tmp_path)).returncode == 0
    assert admin_process("--run-dir", str(tmp_path), "status", POOL_RUN_DIR="/nowhere").returncode == 0
    assert admin_process("status", POOL_ADMIN_ENDPOINT=daemon.endpoint).returncode == 0


def test_it_tells_its_version():
    assert admin_process("--version").stdout == f"{__version__}\n"


def draining(*pools):
    """What `status` answers, one time after the other; the last one for good."""
    answers = [a_snapshot(a_pool(state=state, running=running, backlog=waiting)) for state, running, waiting in pools]
    return lambda _: answers.pop(0) if len(answers) > 1 else answers[0]


def test_a_drain_with_a_timeout_waits_until_nothing_runs_or_waits(daemon):
    daemon.answers |= {
        "drain": lambda _: {"pools": ["default"], "text": "as you wish"},
        "status": draining(("draining", 1, 2), ("draining", 1, 0), ("draining", 0, 0)),
    }
    result = admin(daemon, "drain", "default", "--timeout", "60")
    assert (result.exit_code, result.stdout) == (0, "as you wish\n")
    assert [name for name, _ in daemon.calls] == ["drain", "status", "status", "status"]


@pytest.mark.parametrize(
    ("pool", "said"),
    [(("draining", 1, 2), "1 jobs run and 2 wait in default"), (("running", 0, 0), "default was resumed")],
)
def test_a_drain_that_is_not_done_in_time_or_is_ended_by_somebody_is_an_error_with_the_reason(daemon, pool, said):
    daemon.answers |= {"drain": lambda _: {"pools": ["default"], "text": "yes"}, "status": draining(pool)}
    result = admin(daemon, "drain", "--timeout", "0.01")
    assert (result.exit_code, said in result.stderr) == (1, True), result.stderr
