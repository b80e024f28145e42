"""The daemon's directories: it makes and locks them, or refuses them and says what to do."""

import errno
import os
import stat
import subprocess

import pytest

from pool.daemon.run_directories import RunDirectories
from pool.errors import ConfigError


@pytest.fixture
def made():
    held = []

    def make(run_dir, state_dir):
        held.append(RunDirectories(run_dir, state_dir))
        return held[-1]

    yield make
    for each in held:
        each.close()


def test_directories_are_made_and_closed_to_others(tmp_path, made):
    made(tmp_path / "run", tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "run" / "w").stat().st_mode) == 0o700


def test_a_restarted_daemon_has_the_same_owner_and_another_instance(tmp_path, made):
    first = made(tmp_path / "run", tmp_path / "state")
    first.close = lambda: None
    owner, instance = first.owner, first.instance
    RunDirectories.close(first)
    second = made(tmp_path / "run", tmp_path / "state")
    assert second.owner == owner
    assert second.instance != instance


@pytest.mark.parametrize("shared", ["run", "state"])
def test_a_directory_in_use_is_refused_with_what_to_do(tmp_path, made, shared):
    made(tmp_path / "run", tmp_path / "state")
    names = {"run": "run2", "state": "state2"} | {shared: shared}
    with pytest.raises(ConfigError, match="another daemon already uses"):
        made(tmp_path / names["run"], tmp_path / names["state"])


def test_a_run_directory_too_long_for_a_socket_is_refused_with_the_bytes(tmp_path, made):
    with pytest.raises(ConfigError, match=r"too long.*107"):
        made(tmp_path / ("x" * 90), tmp_path / "state")


def test_a_path_that_is_no_directory_is_refused(tmp_path, made):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot use the directory"):
        made(tmp_path / "file", tmp_path / "state")


@pytest.mark.parametrize("name", ["run", "state"])
def test_a_directory_that_others_use_is_refused_and_stays_open_to_them(tmp_path, made, name):
    shared = tmp_path / name
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "theirs").touch()
    with pytest.raises(ConfigError, match=rf"{name} has files of others, such as 'theirs'.*name one that only"):
        made(tmp_path / "run", tmp_path / "state")
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    assert os.listdir(shared) == ["theirs"]


def _place_of_another_user(path, kind):
    """As he makes it in a directory that is open to all, before the daemon is started for the first time."""
    if kind == "link":
        path.symlink_to("/nonexistent")
    elif kind == "file":
        path.touch()
    else:
        path.mkdir()
    os.chown(path, 65533, 65533, follow_symlinks=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("kind", ["directory", "link"])
@pytest.mark.parametrize("name", ["run", "state"])
def test_a_directory_of_another_user_is_refused_and_stays_as_it_is(tmp_path, made, name, kind):
    _place_of_another_user(tmp_path / name, kind)
    before = os.lstat(tmp_path / name).st_mode
    with pytest.raises(ConfigError, match=rf"{name} belongs to user 65533.*remove it"):
        made(tmp_path / "run", tmp_path / "state")
    assert os.lstat(tmp_path / name).st_mode == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize(
    ("name", "kind"),
    [("run/w", "link"), ("run/w", "directory"), ("run/journal", "link"), ("run/lock", "file"),
     ("state/datasets", "link"), ("state/owner", "file"), ("state/journal", "directory")],
)  # fmt: skip
def test_what_another_user_has_put_into_a_directory_is_refused_and_not_followed(tmp_path, made, name, kind):
    directory = (tmp_path / name).parent
    directory.mkdir()
    directory.chmod(0o777)
    (directory / "lock").touch()
    (tmp_path / name).unlink(missing_ok=True)
    _place_of_another_user(tmp_path / name, kind)
    with pytest.raises(ConfigError, match=rf"{name} belongs to user 65533.*remove it"):
        made(tmp_path / "run", tmp_path / "state")
    assert os.lstat(tmp_path / name).st_uid == 65533


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_link_of_another_user_does_not_have_a_directory_of_the_host_closed(tmp_path, made):
    """Without the check the daemon set the mode of what `w` led to."""
    (tmp_path / "host").mkdir(mode=0o755)
    (tmp_path / "run").mkdir(mode=0o777)
    (tmp_path / "run" / "lock").touch()
    (tmp_path / "run" / "w").symlink_to(tmp_path / "host")
    os.chown(tmp_path / "run" / "w", 65533, 65533, follow_symlinks=False)
    with pytest.raises(ConfigError, match="belongs to user 65533"):
        made(tmp_path / "run", tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "host").stat().st_mode) == 0o755


def test_a_link_of_the_daemons_own_user_to_another_disk_is_used(tmp_path, made):
    (tmp_path / "disk").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "disk")
    made(tmp_path / "run", tmp_path / "state")
    assert (tmp_path / "disk" / "owner").exists()


def test_a_directory_that_a_daemon_has_used_may_have_more_in_it(tmp_path, made):
    made(tmp_path / "run", tmp_path / "state").close()
    (tmp_path / "state" / "notes").touch()
    made(tmp_path / "run", tmp_path / "state")


def test_one_directory_for_both_is_refused_as_such(tmp_path, made):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"run_dir and daemon\.state_dir are both .*name two"):
        made(tmp_path / "run", tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system of 4 KiB, which only root can")
def test_the_error_for_a_full_disk_says_so(tmp_path, made):
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=3", "none", state], check=True)
    try:
        (state / "journal").write_bytes(b"x" * 4096)
        with pytest.raises(ConfigError, match="no space left"):
            made(tmp_path / "run", state)
    finally:
        subprocess.run(["umount", state], check=True)


@pytest.mark.parametrize("call", ["fcntl.flock", "pathlib.Path.iterdir"])
def test_a_disk_that_fails_is_an_error_that_names_the_directory(tmp_path, made, monkeypatch, call):
    (tmp_path / "run").mkdir()

    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(tmp_path / "run"))

    monkeypatch.setattr(call, fails)
    with pytest.raises(ConfigError, match=r"cannot write .*/run.*Input/output error"):
        made(tmp_path / "run", tmp_path / "state")
