"""seccomp/derive.py checks that each entry of the list of system calls has a reason."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.process import python

SECCOMP = Path(__file__).resolve().parents[2] / "seccomp"


def check(directory):
    done = python(SECCOMP / "derive.py", "--check", "--directory", directory)
    return done.returncode, done.stdout


@pytest.fixture
def lists(tmp_path):
    for name in ("worker.json", "traced.json", "additions.yaml", "refused.yaml"):
        shutil.copy(SECCOMP / name, tmp_path)
    return tmp_path


def change_profile(directory, change):
    path = directory / "worker.json"
    profile = json.loads(path.read_text())
    change(profile["syscalls"])
    path.write_text(json.dumps(profile))


def test_every_system_call_that_is_allowed_is_traced_or_explained():
    code, said = check(SECCOMP)
    assert code == 0, said


def test_a_call_that_somebody_allows_without_a_reason_is_found(lists):
    change_profile(lists, lambda rules: rules[0]["names"].append("ptrace"))
    code, said = check(lists)
    assert code == 1
    assert "allowed, but neither traced nor in additions.yaml: ptrace\n" in said


def test_a_call_that_the_corpus_needs_cannot_be_taken_out_silently(lists):
    change_profile(lists, lambda rules: rules[0]["names"].remove("execve"))
    code, said = check(lists)
    assert code == 1
    assert "traced and not allowed, and not in refused.yaml: execve\n" in said


def test_a_reason_for_what_is_not_allowed_is_found(lists):
    with (lists / "additions.yaml").open("a") as file:
        file.write("\n- reason: it was once thought to be needed\n  names: [bpf]\n")
    code, said = check(lists)
    assert (code, "in additions.yaml, but not allowed: bpf\n" in said) == (1, True)


def test_the_trace_says_what_it_was_made_with():
    made = json.loads((SECCOMP / "traced.json").read_text())["made"]
    assert {"date", "kernel", "libc", "python", "strace", "numpy", "pandas", "scikit-learn"} <= made.keys()
