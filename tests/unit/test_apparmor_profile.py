"""The AppArmor profile allows each mount that a job's namespaces take, and none besides. `./dev vm` shows
the same on a kernel; these tests fail at once when one of the two is changed without the other.
"""

import os
import re

import pytest
from runner import isolation, job_mounts, kernel
from runner.confinement import PROC, Confinement, Grant
from runner.kernel import MS_BIND, MS_PRIVATE, MS_REC, MS_REMOUNT

from pool import assets

RULE = re.compile(
    r"mount (?:fstype=(?P<kind>\w+)|options=\(rw, (?P<option>\w+)\))(?: (?P<source>/\S*))? -> (?P<target>\S+),$"
)
REMOUNT = re.compile(r"remount (?P<target>\S+),$")
OPTIONS = {MS_REC | MS_PRIVATE: "rprivate", MS_BIND: "bind", MS_BIND | MS_REC: "rbind"}


def pattern(glob):
    """A path of a rule as a regular expression: ** crosses directories, * does not, {a,b} is one of them."""
    words = {"{": "(?:", "}": ")", ",": "|", "**": ".*", "*": "[^/]*"}
    parts = re.split(r"(\*\*|\*|[{},]|\[[^]]*\])", glob)
    return re.compile("".join(words.get(part, part if part.startswith("[") else re.escape(part)) for part in parts))


def lines():
    return [line.strip() for line in assets.apparmor_profile().read_text(encoding="utf-8").splitlines()]


def allowed(source, target, kind, flags):
    if flags & MS_REMOUNT:
        return any(pattern(rule["target"]).fullmatch(target) for rule in map(REMOUNT.match, lines()) if rule)
    option = OPTIONS.get(flags & (MS_BIND | MS_REC | MS_PRIVATE))
    return any(
        (rule["kind"] == kind if option is None else rule["option"] == option)
        and pattern(rule["target"]).fullmatch(target)
        and (rule["source"] is None or pattern(rule["source"]).fullmatch(source))
        for rule in map(RULE.match, lines())
        if rule
    )


def as_apparmor_sees(path):
    """Links resolved, and a slash after a directory."""
    path = path.replace("/proc/self", "/proc/7") if path.startswith("/proc/") else path
    plain = path in ("", "/") or path.rpartition("/")[2] in {*job_mounts._PROC_FILES, "maps"}
    return path if plain else f"{path}/"


@pytest.fixture
def made(monkeypatch):
    """What is mounted, without mounting it."""
    calls = []

    def perform(steps):
        for step in steps:
            if step.doing.startswith("mount "):
                source, target, kind, flags, _ = step.arguments
                names = [os.fsdecode(each or b"") for each in (source, target, kind)]
                calls.append((as_apparmor_sees(names[0]), as_apparmor_sees(names[1]), names[2], flags))

    monkeypatch.setattr(kernel, "perform", perform)
    for name in ("unshare", "own_user_namespace"):
        monkeypatch.setattr(kernel, name, lambda _: None)
    return calls


@pytest.mark.parametrize("options", [(), (PROC,)])
def test_every_mount_of_a_child_is_allowed(made, options):
    child = Confinement(Grant(frozenset({"mount"})), options, tmp_bytes=1 << 20, tmp_inodes=100)
    child.cover()
    kernel.perform(child.isolating)
    child.resize(1 << 19)
    kernel.perform(child.sealing[False]._steps)
    assert len(made) > 5
    assert [each for each in made if not allowed(*each)] == []


def test_every_mount_that_is_only_tried_is_allowed(made):
    isolation._try_mounts()
    assert made
    assert [each for each in made if not allowed(*each)] == []


@pytest.mark.parametrize(
    "call",
    [
        ("", "/proc/", "proc", 0),
        ("", "/sys/", "sysfs", 0),
        ("", "/tmp/", "cgroup2", 0),
        ("", "/usr/", "tmpfs", 0),
        ("/proc/sys/", "/tmp/proc/sys/", "", MS_BIND),
        ("/proc/sysrq-trigger", "/tmp/proc/x", "", MS_BIND),
        ("/sys/", "/tmp/", "", MS_BIND),
        ("/usr/", "/tmp/", "", MS_BIND),
        ("/tmp/", "/usr/", "", MS_BIND),
        ("", "/usr/", "", MS_REMOUNT),
    ],
)
def test_other_mounts_are_not_allowed(call):
    assert not allowed(*call)


def test_it_is_written_for_the_oldest_rules_that_know_all_of_it():
    assert "abi <abi/3.0>," in lines()
    assert not [line for line in lines() if line.startswith("userns")], "AppArmor 3 cannot load it"
