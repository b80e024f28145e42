"""Which Python an image gets, and the error where there is none."""

import pytest

from pool.errors import EngineError
from pool.images import base
from pool.images.base import Base


@pytest.fixture
def engine(monkeypatch):
    """An Engine without images, and no registry. Returns the releases of which packages were taken, and the images it has."""
    made, present = [], set()
    monkeypatch.setattr(base, "has_image", lambda _client, name: name in present)
    monkeypatch.setattr(base, "_pull", lambda _name, *, progress: False)
    monkeypatch.setattr(base, "_from_packages", lambda _, tag, *, recipe, progress: made.append(recipe["suite"]))
    monkeypatch.setattr(base, "_inspect", lambda _, name: described(name))
    return made, present


def described(name):
    version = next((each for each in base.PYTHONS if each in name), "3.13" if "trixie" in name else "3.11")
    return Base(name=name, id="i", python=version, python_full=f"{version}.1", libc=(2, 36), machine="x86_64")


def find(python, wanted=None):
    return base.find_base(None, wanted, python=python, progress=lambda _: None)


@pytest.mark.parametrize(("python", "suite"), [("3.11", "bookworm"), ("3.13", "trixie")])
def test_a_version_that_debian_has_is_made_from_its_packages(engine, python, suite):
    assert find(python).python == python
    assert engine[0] == [suite]


def test_a_version_that_debian_lacks_comes_from_a_slim_image(engine):
    engine[1].add("python:3.12-slim-bookworm")
    assert find("3.12").name == "python:3.12-slim-bookworm"
    assert engine[0] == []


def test_where_there_is_no_slim_image_of_it_the_error_says_what_can_be_had(engine):
    with pytest.raises(EngineError, match=r"no package of Python 3\.12.*--python 3\.11 or 3\.13.*--base"):
        find("3.12")
    assert engine[0] == []


def test_a_base_of_another_version_than_asked_for_is_refused(engine):
    engine[1].add("mine:3.11")
    with pytest.raises(EngineError, match=r"'mine:3\.11' has Python 3\.11; --python asks for 3\.13"):
        find("3.13", "mine:3.11")


@pytest.mark.parametrize(("here", "suite"), [("3.11", "bookworm"), ("3.12", "bookworm"), ("3.13", "trixie")])
def test_without_a_version_the_image_has_that_of_this_interpreter_where_debian_has_it(engine, monkeypatch, here, suite):
    monkeypatch.setattr(base, "HERE", here)
    find(None)
    assert engine[0] == [suite]


def test_without_docker_a_version_that_debian_lacks_is_refused():
    with pytest.raises(EngineError, match=r"no package of Python 3\.12"):
        base.debian_base("3.12")
