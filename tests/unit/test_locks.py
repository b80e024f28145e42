"""The lock files: complete, with hashes, true to the declared ranges, and without the name of a server."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import lock

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = sorted({each.path(python) for each in (*lock.LOCKS, *lock.COMMON) for python in lock.PYTHONS})


def ids(path):
    return str(path.relative_to(ROOT))


def declared(*lines):
    """The requirements, with those of an extra of the project in its place."""
    for line in lines:
        wanted = Requirement(line)
        if wanted.name == PROJECT["project"]["name"]:
            for extra in wanted.extras:
                yield from declared(*PROJECT["project"]["optional-dependencies"][extra])
        else:
            yield wanted


def requirements(path):
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return list(declared(*filter(None, lines)))


def wanted(each):
    """What a lock file is made from, as requirements."""
    found = []
    for argument in each.wanted:
        kind, _, name = argument.rpartition("=")
        if kind == "--extra":
            found += declared(*PROJECT["project"]["optional-dependencies"][name])
        elif kind == "--group":
            found += declared(*PROJECT["dependency-groups"][name.rpartition(":")[2]])
        elif argument == "pyproject.toml":
            found += declared(*PROJECT["project"]["dependencies"])
        else:
            found += requirements(ROOT / argument)
    return found


def test_every_python_that_the_project_declares_is_locked():
    said = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert tuple(said) == lock.PYTHONS


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_each_requirement_has_one_version_and_hashes(path):
    text = path.read_text()
    entries = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "").splitlines()
    assert entries
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9._-]+==\S+( +;[^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+", entry), entry[:80]


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_no_server_is_named(path):
    assert not re.search(r"://|--(extra-)?index|find-links|trusted-host", path.read_text())


@pytest.mark.parametrize("python", lock.PYTHONS)
@pytest.mark.parametrize("each", [*lock.LOCKS, *lock.COMMON], ids=lambda each: each.place)
def test_what_is_declared_is_locked_in_a_version_that_the_range_allows(each, python):
    pins = lock.pins(each.path(python))
    for requirement in wanted(each):
        name = canonicalize_name(requirement.name)
        assert name in pins, "run ./dev update"
        assert requirement.specifier.contains(pins[name], prereleases=True), f"{requirement}: {pins[name]}"


@pytest.mark.parametrize("python", lock.PYTHONS)
def test_the_lock_files_of_one_python_agree(python):
    chosen = {}
    for each in lock.LOCKS:
        for name, version in lock.pins(each.path(python)).items():
            assert chosen.setdefault(name, version) == version, (each.place, name)


def test_the_runner_takes_the_versions_that_the_project_takes():
    project = {each.name: each.specifier for each in declared(*PROJECT["project"]["dependencies"])}
    for requirement in requirements(ROOT / "worker_image/requirements-runner.txt"):
        # tzdata is for the jobs; the project itself does not use it.
        assert requirement.specifier == project.get(requirement.name, "") or requirement.name == "tzdata"
