"""./dev explains itself and refuses what it cannot do; what it installs and starts is for a bare machine to show."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = {"setup", "demo", "test", "lint", "bench", "corpus", "fuzz", "vm", "stop"}


NOBODY = 65534


def dev(
    *arguments: str, root: Path = ROOT, user: int | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    return subprocess.run(
        ["bash", root / "dev", *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd="/", user=user, env={**own, **environ},
    )  # fmt: skip


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A checkout that anybody may use, whose environment is up to date but finds no Docker Engine."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve()
        for name in ("dev", "pyproject.toml"):
            shutil.copy(ROOT / name, root)
        python = root / ".venv/bin/python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\nexit 1\n")
        digest = hashlib.sha256((root / "pyproject.toml").read_bytes()).hexdigest()
        (root / ".venv/.installed").write_text(f"{root} {digest}  -\n")
        (root / ".cache").mkdir()
        for path in (root, root / ".cache", python):
            path.chmod(0o777)
        yield root


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",)])
def test_dev_alone_explains_every_command(arguments):
    told = dev(*arguments)
    assert told.returncode == 0
    assert set(re.findall(r"^  (\w+)  ", told.stdout, re.MULTILINE)) == COMMANDS


def test_an_unknown_command_is_wrong_usage():
    told = dev("tset")
    assert told.returncode == 2
    assert "there is no command tset" in told.stderr


@pytest.mark.parametrize("script", ["dev", ".ci/run"])
def test_the_scripts_are_executable_and_parse(script):
    assert os.access(ROOT / script, os.X_OK)
    assert subprocess.run(["bash", "-n", ROOT / script], check=False).returncode == 0


def test_stop_stops_nothing_that_it_did_not_start(checkout):
    (checkout / ".cache/dockerd.pid").write_text(f"{os.getpid()}\n")  # alive, and no dockerd
    told = dev("stop", root=checkout)
    assert told.returncode == 0
    assert "No Docker Engine started by ./dev is running" in told.stdout


def test_an_engine_elsewhere_that_does_not_answer_is_named(checkout):
    told = dev("setup", root=checkout, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert told.returncode == 1
    assert "DOCKER_HOST=unix:///nowhere/docker.sock; start it" in told.stderr


def test_who_may_not_install_is_told_what_to_ask_for(checkout):
    told = dev("setup", root=checkout, user=NOBODY if os.geteuid() == 0 else None)
    assert told.returncode == 1
    assert "As root:" in told.stderr or "as root:" in told.stderr
    assert "usermod -aG docker" in told.stderr
