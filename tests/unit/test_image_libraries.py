"""Which versions the image gets: the locked ones, combined with a user's own requirements."""

from pathlib import Path

import pytest

from pool import assets
from pool.errors import EngineError
from pool.images import libraries
from pool.images.base import Base

BASE = Base(name="b", id="i", python="3.11", python_full="3.11.2", libc=(2, 36), machine="x86_64")


@pytest.fixture
def downloads(monkeypatch):
    """What pip is asked for: (arguments, text of the constraints)."""
    calls = []

    def record(_base, wanted, target, *, progress):
        del progress
        target.mkdir(exist_ok=True)
        constraints = Path(wanted[wanted.index("--constraint") + 1]).read_text() if "--constraint" in wanted else ""
        calls.append((wanted, constraints))
        if constraints and record.refuse:
            raise EngineError("these do not fit together")

    record.refuse = False
    monkeypatch.setattr(libraries, "download", record)
    return calls, record


def install(tmp_path, text):
    path = tmp_path / "requirements.txt"
    path.write_text(text)
    libraries.install(BASE, path, tmp_path / "packages", progress=lambda _: None)


def test_our_own_requirements_are_installed_as_locked_with_hashes(tmp_path, downloads):
    calls, _ = downloads
    libraries.install(BASE, assets.worker_image() / "requirements.txt", tmp_path / "packages", progress=lambda _: None)
    [(wanted, _)] = calls
    assert wanted.count("--require-hashes") == 2
    assert [Path(each).name for each in wanted if each.endswith(".txt")] == ["runner.txt", "libraries.txt"]


def test_what_a_user_leaves_open_has_the_locked_version_and_what_he_fixes_his_own(tmp_path, downloads):
    calls, _ = downloads
    install(tmp_path, "# mine\nnumpy==2.1.0  # old\npandas\n-i https://example.org/simple\nscikit-learn>=1\n")
    [(wanted, constraints)] = calls
    assert "--require-hashes" not in wanted
    assert "pandas==" in constraints
    assert "msgspec==" in constraints
    assert "numpy==" not in constraints


def test_where_the_locked_versions_do_not_fit_versions_that_do_are_taken(tmp_path, downloads):
    calls, record = downloads
    record.refuse = True
    install(tmp_path, "a-library-that-needs-an-old-numpy\n")
    assert [bool(constraints) for _, constraints in calls] == [True, False]
    assert any(each.endswith("requirements-runner.txt") for each in calls[1][0])


def test_a_version_with_which_the_runner_does_not_work_is_refused_with_both_statements(tmp_path, downloads):
    calls, _ = downloads
    with pytest.raises(EngineError, match=r"PyZMQ==25.1.*pyzmq>=26"):
        install(tmp_path, "PyZMQ==25.1\n")
    assert not calls


def test_a_version_of_the_runners_libraries_that_works_is_the_users_to_choose(tmp_path, downloads):
    calls, _ = downloads
    install(tmp_path, "msgpack==1.2.4\n")
    assert "msgpack==" not in calls[0][1]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_need_of_the_runner_is_locked(python):
    needs = libraries.named_requirements(assets.worker_image() / "requirements-runner.txt")
    pins = libraries._pins(python)
    assert needs.keys() <= pins.keys()
    assert all(need.specifier.contains(pins[name]) for name, need in needs.items())


def test_a_profile_of_ours_is_installed_as_it_is_locked(downloads, tmp_path):
    calls, _ = downloads
    libraries.install(BASE, libraries.profile("science"), tmp_path / "packages", progress=lambda _: None)
    ((wanted, _),) = calls
    assert [Path(each).name for each in wanted if each.endswith(".txt")] == ["runner.txt", "science.txt"]
    assert "--require-hashes" in wanted


def test_the_lock_of_the_science_profile_does_not_change_other_images(tmp_path):
    own = tmp_path / "requirements.txt"
    own.write_text("httpx\n")
    for requirements in (libraries.profile("default"), own):
        assert "science.txt" not in {file.name for file in libraries._inputs("3.11", requirements)}
    assert "science.txt" in {file.name for file in libraries._inputs("3.11", libraries.profile("science"))}


def test_a_copy_of_a_profile_with_a_line_more_is_a_users_own(downloads, tmp_path):
    calls, _ = downloads
    install(tmp_path, libraries.profile("science").read_text() + "xgboost\n")
    assert "--require-hashes" not in calls[0][0]
    assert "python-dateutil==" in calls[0][1], "the locked versions are constraints"
