"""`./dev vm`: a machine that does not end, and the report of its checks. The machine itself is not tested here."""

import json
import subprocess
import sys
import time

import pytest

from tests.vm import machine
from tests.vm.machine import MachineError
from tests.vm.report import Report

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]
ENDS = [sys.executable, "-c", ""]


@pytest.fixture
def boot(tmp_path, monkeypatch):
    """Boot another program than the emulator, which has told these lines."""

    def boot(command, *lines, heard=None):
        told = "".join(json.dumps(line) + "\n" for line in lines)

        def arguments(_system, _payload, results, console):
            results.write_text(told)
            console.write_text("Kernel panic: last words")
            return command

        monkeypatch.setattr(machine, "arguments", arguments)
        started = []
        monkeypatch.setattr(machine.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[0])
        try:
            machine.boot(None, None, tmp_path, hear=(heard if heard is not None else []).append)
        finally:
            assert started[0].returncode is not None, "nothing is left running"

    popen = subprocess.Popen
    return boot


def test_a_machine_that_ends_early_is_told_with_its_step_and_its_last_words(boot):
    with pytest.raises(MachineError, match=r"(?s)ended during: loading.*Kernel panic: last words"):
        boot(ENDS, {"step": "loading"})


def test_a_machine_that_hangs_is_killed(boot, monkeypatch):
    monkeypatch.setattr(machine, "BOOT_S", 0.1)
    started = time.monotonic()
    with pytest.raises(MachineError, match=r"(?s)nothing heard.*during: the boot.*last words"):
        boot(SLEEPS)
    assert time.monotonic() - started < 60


def test_a_failed_check_is_marked_and_is_no_success():
    report = Report()
    for told in (
        {"fact": "kernel", "value": "6.12"},
        {"check": "no-op job", "column": "pool-worker", "passed": False, "seen": "a | b\nc"},
        {"check": "step: unshare", "column": "docker-default", "passed": True, "seen": "EACCES"},
        {"end": "all steps were taken"},
    ):
        report.hear(told)
    assert "| no-op job |  | **failed**: a \\| b c |" in report.as_page()
    assert "| unshare | EACCES |  |" in report.as_page()
    assert "| kernel | 6.12 |" in report.as_page()
    assert not report.complete
