"""The output and exit status of `pool-admin doctor`, with workers of every kind and without a daemon."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pool import doctor as host_doctor
from pool.doctor import TITLES, Host
from tests.unit.fake_admin import AdminSocket, Refusal, admin, admin_process, row
from tests.unit.hosts import a_host

HELD = {"probe": "network", "verdict": "held", "seen": "ENETUNREACH"}
SKIPPED = {"probe": "landlock", "verdict": "skipped", "seen": ""}
BROKEN = {"probe": "mount", "verdict": "broken", "seen": "mounted a tmpfs"}


def a_patient(name: str = "default-1", *probes: dict[str, str], **changes: object) -> dict[str, Any]:
    worker = {
        "id": name,
        "pool": "default",
        "isolation": "namespaces",
        "missing": [],
        "probes": list(probes or (HELD,)),
    }
    return worker | changes


def a_checkup(*workers: dict[str, Any]) -> dict[str, Any]:
    return {"workers": list(workers or (a_patient(),)), "engine": {"name": "docker", "version": "29.6.0"}}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[AdminSocket]:
    with closing(AdminSocket(tmp_path / "admin.sock")) as fake:
        fake.answers["doctor"] = lambda _: a_checkup()
        yield fake


@pytest.fixture(autouse=True)
def asked(monkeypatch) -> list[Path]:
    """A host that was made up takes the place of this one; which run directories were asked for is kept."""
    asked: list[Path] = []

    def gather(run_dir: Path) -> Host:
        asked.append(run_dir)
        return a_host()

    monkeypatch.setattr(host_doctor, "gather", gather)
    return asked


def a_sick_host(monkeypatch, **changes: Any) -> None:
    monkeypatch.setattr(host_doctor, "gather", lambda _: a_host(**changes))


# ---- well ----


def test_doctor_shows_the_workers_the_probes_and_the_host_and_ends_0(daemon):
    result = admin(daemon, "doctor")
    assert result.exit_code == 0, result.output
    assert row(result.stdout, "default-1") == ["default-1", "default", "namespaces", "-", "1", "held"]
    assert row(result.stdout, "network") == ["network", "held", "default-1", "ENETUNREACH"]
    assert row(result.stdout, "landlock ")[:2] == ["landlock", "ok"]
    assert result.stdout.rstrip().endswith("the isolation holds")


def test_a_warning_about_the_host_is_shown_with_what_to_do_and_ends_0(daemon, monkeypatch):
    a_sick_host(monkeypatch, kernel={"cgroups": "v1"})
    result = admin(daemon, "doctor")
    assert result.exit_code == 0
    assert row(result.stdout, "cgroups ")[1] == "warning"
    assert "cgroups: limits hold" in result.stdout


def test_workers_that_agree_share_a_row_and_a_bad_end_has_its_own(daemon):
    daemon.answers["doctor"] = lambda _: a_checkup(
        a_patient("w-1", HELD, SKIPPED),
        a_patient("w-2", HELD | {"seen": "EPERM"}, BROKEN),
        a_patient("w-3", HELD, BROKEN),
    )
    output = admin(daemon, "doctor").stdout
    assert row(output, "network") == ["network", "held", "all", "ENETUNREACH"]
    assert row(output, "landlock  ")[:3] == ["landlock", "skipped", "w-1"]
    assert [line.split()[2] for line in output.splitlines() if line.startswith("mount ")] == ["w-2", "w-3"]


# ---- degraded ----


@pytest.mark.parametrize(
    ("workers", "sentence"),
    [
        ([a_patient("w-1", HELD, BROKEN)], "worker w-1: mount is broken: mounted a tmpfs"),
        ([a_patient("w-1", HELD | {"verdict": "odd"})], "worker w-1: network is odd: ENETUNREACH"),
        ([a_patient("w-1", {"probe": "mount"})], "worker w-1: mount is without a verdict: nothing seen"),
        ([a_patient("w-1", missing=["landlock", "pid"])], "worker w-1: isolation namespaces, without landlock, pid"),
        ([], "no worker has passed its lockdown probes yet"),
        ([a_patient("w-1", probes=[])], "no worker has passed its lockdown probes yet"),
        ([{"id": "w-1"}], "no worker has passed its lockdown probes yet"),
    ],
)
def test_a_worker_that_does_not_hold_ends_4_and_says_why(daemon, workers, sentence):
    daemon.answers["doctor"] = lambda _: {"workers": workers}
    result = admin(daemon, "doctor")
    assert result.exit_code == 4
    assert sentence in result.stdout
    as_json = admin(daemon, "doctor", "--json")
    assert as_json.exit_code == 4
    assert sentence in json.loads(as_json.stdout)["degraded"][0]


def test_a_worker_that_is_still_starting_beside_one_that_holds_is_no_trouble(daemon):
    daemon.answers["doctor"] = lambda _: a_checkup(a_patient("w-1"), a_patient("w-2", probes=[], isolation=None))
    assert admin(daemon, "doctor").exit_code == 0


def test_a_problem_of_the_host_ends_4(daemon, monkeypatch):
    a_sick_host(monkeypatch, kernel={"seccomp": frozenset()})
    result = admin(daemon, "doctor")
    assert result.exit_code == 4
    assert "host: seccomp: no filters" in result.stdout


# ---- nobody to ask ----


def test_without_a_daemon_the_host_is_shown_and_the_end_is_3(tmp_path):
    result = admin_process("--run-dir", str(tmp_path), "doctor")
    assert result.returncode == 3
    first_words = [line.partition(" ")[0] for line in result.stdout.splitlines()]
    assert [word for word in first_words if word in TITLES] == list(TITLES)
    assert "the isolation holds" not in result.stdout
    assert result.stderr.startswith("error: no daemon: ")


def test_without_a_daemon_json_is_one_object_with_the_host_and_the_error(tmp_path):
    result = admin_process("--run-dir", str(tmp_path), "doctor", "--json")
    answer = json.loads(result.stdout)
    assert result.returncode == 3
    assert answer["daemon"] is None
    assert answer["error"]["code"] == "unreachable"
    assert [each["id"] for each in answer["host"]] == list(TITLES)


def test_an_older_daemon_is_called_older(daemon):
    daemon.answers["doctor"] = lambda _: Refusal("pool", "the daemon knows no call 'doctor'; it knows: jobs, status")
    result = admin(daemon, "doctor")
    assert result.exit_code == 1
    assert "the daemon is older than this pool-admin" in result.stderr
    assert row(result.stdout, "seccomp ")


@pytest.mark.parametrize("answer", [Refusal("busy", "later"), {"workers": "none"}, [], {"workers": [7]}])
def test_an_answer_that_is_none_leaves_the_host_and_ends_1(daemon, answer):
    daemon.answers["doctor"] = lambda _: answer
    result = admin(daemon, "doctor")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert row(result.stdout, "seccomp ")


# ---- json, configuration, hostile text ----


def test_json_has_the_daemons_answer_as_it_came(daemon):
    checkup = a_checkup() | {"later": {"added": [1, None]}}
    daemon.answers["doctor"] = lambda _: checkup
    answer = json.loads(admin(daemon, "doctor", "--json").stdout)
    assert set(answer) == {"daemon", "host", "degraded"}
    assert answer["daemon"] == checkup
    assert answer["degraded"] == []
    assert answer["host"][0] == {
        "id": "kernel",
        "title": "kernel version",
        "verdict": "ok",
        "seen": "6.12.48-amd64",
        "advice": "",
    }


def test_a_configuration_is_checked_against_the_host(daemon, tmp_path, asked):
    config = tmp_path / "pool.yaml"
    config.write_text("pools: {default: {runtime: kata}}")
    result = admin(daemon, "doctor", "--config", str(config))
    assert result.exit_code == 4
    assert "host: engine-runtimes" in result.stdout
    assert asked[0] == tmp_path  # the endpoint was typed, so it counts more


def test_a_configuration_says_where_the_daemon_is(tmp_path, asked):
    from typer.testing import CliRunner

    from pool.cli.admin import app

    config = tmp_path / "pool.yaml"
    config.write_text(f"daemon: {{run_dir: {tmp_path / 'there'}}}")
    result = CliRunner().invoke(app, ["doctor", "--config", str(config)], catch_exceptions=False)
    assert result.exit_code == 3
    assert asked[0] == tmp_path / "there"


def test_a_configuration_that_is_not_valid_ends_1(daemon, tmp_path):
    config = tmp_path / "pool.yaml"
    config.write_text("pools: {default: {runtimes: x}}")
    result = admin(daemon, "doctor", "--config", str(config), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "config"


def test_nothing_that_a_worker_says_acts_on_the_terminal(daemon, monkeypatch):
    evil = "\x1b[2J[red]\u202e\n"
    a_sick_host(monkeypatch, kernel={"core_pattern": f"|{evil}"})
    probe = {"probe": evil, "verdict": evil, "seen": evil}
    daemon.answers["doctor"] = lambda _: a_checkup(a_patient(evil, probe, pool=evil, isolation=evil, missing=[evil]))
    result = admin(daemon, "doctor")
    assert "\\x1b[2J[red]\\u202e\\n" in result.stdout
    assert not set("\x1b\u202e") & set(result.stdout)
