"""What `pool-admin status` and `workers` show of a snapshot: at a glance, narrow, piped, and of hostile text."""

import io
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pool import printable
from pool.cli import tables, views
from pool.status import Status
from tests.unit.fake_admin import AdminSocket, a_pool, a_snapshot, a_worker, admin, admin_process, row


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[AdminSocket]:
    with closing(AdminSocket(tmp_path / "admin.sock")) as fake:
        yield fake


def rendered(renderable: object, *, width: int = 200) -> str:
    console = tables.Console(width=width, markup=False, highlight=False, emoji=False, file=io.StringIO())
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def status_of(snapshot: dict[str, Any], *, width: int = 200) -> str:
    return rendered(tables.status(views.read(snapshot, Status)), width=width)


# ---- status ----


def test_status_shows_a_row_for_each_pool_and_a_line_for_each_worker(daemon):
    daemon.answers["status"] = lambda _: a_snapshot(a_pool(), a_pool(name="reports"))
    result = admin(daemon, "status")
    assert result.exit_code == 0, result.output
    pool = " ".join(row(result.stdout, "default "))
    assert pool == (
        "default running 3/3 (2-8) 1 idle 1 leased 1 starting 5 1 99.9 % 120 ok 3 error 1 timeout 0.91/2.06 ms 4 max_jobs"
    )
    worker = " ".join(row(result.stdout, "default-7f3a-2"))
    assert worker == "default-7f3a-2 default c0ffeec0ffee leased 12 1m 35s 61 MiB plain job-42"
    assert " ".join(row(result.stdout, "default-7f3a-3")) == "default-7f3a-3 default - starting 0 0s - plain -"
    assert row(result.stdout, "reports ")
    assert row(result.stdout, "pool-daemon")[1:6] == ["0.1.0", "running", "pid", "4242", "up"]


def test_status_shows_the_data_sets_of_each_pool_if_there_are_any():
    prices = {"path": "/srv/prices.npy", "digest": "0123456789abcdef" * 4, "size_bytes": 3 << 20, "problem": None}
    first = {"path": "/srv/first.csv", "digest": None, "size_bytes": None, "problem": "no such file"}
    shown = status_of(a_snapshot(a_pool(datasets={"prices": prices, "first": first}), a_pool(name="other")))
    assert " ".join(row(shown, "prices ")) == "prices default 0123456789ab 3.0 MiB /srv/prices.npy"
    assert " ".join(row(shown, "first ")) == "first default - - /srv/first.csv"
    assert "DATA SET" not in status_of(a_snapshot())


def test_data_sets_of_an_older_daemon_are_shown_by_their_file():
    shown = status_of(a_snapshot(a_pool(datasets={"prices": "/srv/prices.npy"})))
    assert " ".join(row(shown, "prices ")) == "prices default - - /srv/prices.npy"


def test_status_json_is_exactly_what_the_daemon_said(daemon):
    snapshot = a_snapshot(later={"added": ["key", 1.5, None]})
    daemon.answers["status"] = lambda _: snapshot
    result = admin(daemon, "status", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == snapshot


@pytest.mark.parametrize(
    ("snapshot", "sentence"),
    [
        (a_snapshot(a_pool(workers=[a_worker()])), "pool default: 1 of at least 2 workers ready"),
        (a_snapshot(a_pool(workers=[])), "pool default: 0 of at least 2 workers ready"),
        (
            a_snapshot(a_pool(breaker={"open": True, "failures": 3, "last_reason": "no image", "retry_in_s": 12.2})),
            "pool default: no workers are started after 3 failed starts, next try in 12 s: no image",
        ),
        (a_snapshot(daemon={"version": "0.1.0", "state": "draining"}), "the daemon is draining, not running"),
    ],
)
def test_status_of_a_degraded_daemon_says_why_and_ends_4(daemon, snapshot, sentence):
    daemon.answers["status"] = lambda _: snapshot
    result = admin(daemon, "status")
    assert sentence in result.stdout
    assert result.exit_code == 4
    as_json = admin(daemon, "status", "--json")
    assert as_json.exit_code == 4
    assert json.loads(as_json.stdout) == snapshot


def test_alerts_are_shown_below_the_pools():
    output = status_of(
        a_snapshot(
            alerts=[
                {"id": "disk", "since": "2026-01-02T00:00:00+00:00", "text": "the state directory is 95 % full"},
                {"id": "breaker:default", "since": "2026-01-02T00:00:00+00:00", "text": "cannot start workers"},
            ]
        )
    )
    assert "the state directory is 95 % full" in output
    assert "cannot start workers" not in output  # the pool's own line says more


def test_a_snapshot_with_only_the_least_is_rendered():
    output = status_of({"daemon": {}, "pools": [{"name": "bare"}]})
    assert " ".join(row(output, "bare")) == "bare - 0/0 (0-0) - 0 0 - - - -"
    assert "no workers" in output
    assert "POOL" in status_of({"daemon": {"state": "starting"}, "pools": []})


def test_figures_that_are_not_there_yet_are_a_dash():
    nothing = {"p50": None, "p95": None, "p99": None}
    for overhead in (None, nothing):
        output = status_of(a_snapshot(a_pool(overhead_ms=overhead, hit_rate=None, jobs={}, recycles={}, breaker=None)))
        assert " ".join(row(output, "default ")).endswith("5 1 - - - -")


def test_an_answer_that_is_no_snapshot_is_a_protocol_error(daemon):
    for answer in ([], {"pools": 3}, {"daemon": {}, "pools": [{"name": 5}]}, None):
        daemon.answers["status"] = lambda _, answer=answer: answer
        result = admin(daemon, "status", "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["error"]["code"] == "protocol_remote"


# ---- what others chose is shown, never obeyed ----

HOSTILE = "[red]x[/red]\x1b[2J\r\x07\x9b31m\u202egnp\n[/]:smile:"


def test_control_characters_and_markup_in_a_snapshot_are_shown_as_text(daemon):
    pool = a_pool(
        name=HOSTILE,
        state=HOSTILE,
        jobs={HOSTILE: 1},
        recycles={HOSTILE: 2},
        breaker={"open": True, "failures": 1, "last_reason": HOSTILE, "retry_in_s": None},
        workers=[dict.fromkeys(("id", "container", "state", "isolation", "job", "client"), HOSTILE)],
    )
    daemon.answers["status"] = lambda _: a_snapshot(pool, alerts=[{"id": HOSTILE, "text": HOSTILE}])
    for command in (["status"], ["workers"], ["status", "--json"]):
        output = admin(daemon, *command).stdout
        assert not [char for char in output if not char.isprintable() and char != "\n"], command
    assert "[red]x[/red]\\x1b[2J\\r\\x07\\x9b31m\\u202egnp\\n[/]:smile:" in admin(daemon, "status").stdout


def test_text_that_prints_stays_as_it_is():
    assert printable.visible("naïve 日本 🙂") == "naïve 日本 🙂"
    assert printable.visible("a\tb\x00\ud800") == "a\\tb\\x00\\ud800"
    assert printable.visible_block("a\n\tb\x1b") == "a\n\tb\\x1b"


# ---- narrow and piped ----


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_narrow_terminal_folds_columns_and_loses_nothing(width):
    output = status_of(a_snapshot(), width=width)
    assert max(len(line) for line in output.splitlines()) <= width
    assert "…" not in output
    letters = "".join(output.split())
    for kept in ("120", "timeout", "job-42"):
        assert kept in letters or width < 80


def test_a_worker_id_stays_whole_on_a_terminal_of_80_columns():
    assert "default-7f3a-2" in status_of(a_snapshot(), width=80)


def test_a_pipe_gets_one_line_for_each_worker_with_whole_ids(daemon):
    long = "w" * 128
    daemon.answers["status"] = lambda _: a_snapshot(
        a_pool(name="p" * 128, workers=[a_worker(id=long, job="j" * 128)] * 2)
    )
    result = admin(daemon, "workers")
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert all(long in line and "p" * 128 in line and "j" * 128 in line for line in lines[1:])
    assert a_worker()["container"] in lines[1]


def test_colour_goes_to_a_terminal_unless_no_color_is_set(daemon):
    daemon.answers["status"] = lambda _: a_snapshot()
    assert "\x1b[" not in admin_process("--endpoint", daemon.endpoint, "status").stdout
    assert "\x1b[32m" in on_a_terminal(daemon, "status")
    assert "\x1b[32m" not in on_a_terminal(daemon, "status", NO_COLOR="1")


def on_a_terminal(daemon: AdminSocket, *arguments: str, **environment: str) -> str:
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm", "COLUMNS": "120", **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "pool.cli.admin", "--endpoint", daemon.endpoint, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={key: value for key, value in os.environ.items() if key != "NO_COLOR"} | environment,
    )
    os.close(theirs)
    output = b""
    with process:
        while select.select([ours], [], [], 60)[0]:
            try:
                output += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert process.returncode == 0, output
    return output.decode()
