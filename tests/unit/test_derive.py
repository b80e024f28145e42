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


def test_every_system_call_that_is_allowed_is_traced_or_explained():
    code, said = check(SECCOMP)
    assert code == 0, said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda names: names.append("ptrace"), "allowed, but neither traced nor in additions.yaml: ptrace\n"),
        (lambda names: names.remove("execve"), "traced and not allowed, and not in refused.yaml: execve\n"),
    ],
    ids=["allowed without a reason", "needed and not allowed"],
)
def test_a_call_whose_place_in_the_list_has_no_reason_is_found(lists, change, words):
    path = lists / "worker.json"
    profile = json.loads(path.read_text())
    change(profile["syscalls"][0]["names"])
    path.write_text(json.dumps(profile))
    code, said = check(lists)
    assert code == 1
    assert words in said


def test_a_reason_for_what_is_not_allowed_is_found(lists):
    with (lists / "additions.yaml").open("a") as file:
        file.write("\n- reason: it was once thought to be needed\n  names: [bpf]\n")
    code, said = check(lists)
    assert (code, "in additions.yaml, but not allowed: bpf\n" in said) == (1, True)


def test_the_trace_says_what_it_was_made_with():
    made = json.loads((SECCOMP / "traced.json").read_text())["made"]
    assert {"date", "kernel", "libc", "python", "strace", "numpy", "pandas", "scikit-learn"} <= made.keys()
