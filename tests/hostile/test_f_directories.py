"""A user of the host who makes the daemon's directories before the daemon does, where everybody may make some."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from pool.daemon.run_directories import RunDirectories
from pool.errors import ConfigError
from tests.hostile.test_f_client_protocol import OTHER_USER, as_root, as_user

pytestmark = as_root


@pytest.fixture
def shared():
    """A directory as /tmp is."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o1777)
    yield directory
    shutil.rmtree(directory)


def whole(run_dir, _host):
    run_dir.mkdir(mode=0o777)


def lured(run_dir, host):
    """As a daemon has left it, but for one link."""
    run_dir.mkdir(mode=0o777)
    run_dir.joinpath("lock").touch()
    run_dir.joinpath("w").symlink_to(host)


def link(run_dir, host):
    run_dir.symlink_to(host)


@pytest.mark.parametrize("make", [whole, lured, link])
def test_f20_directories_that_another_user_has_made_are_not_used(shared, record, make):
    host = shared / "host"
    host.mkdir(mode=0o755)
    assert not as_user(OTHER_USER, make, shared / "run", host)
    with pytest.raises(ConfigError, match=f"run belongs to user {OTHER_USER}") as refused:
        RunDirectories(shared / "run", shared / "state")
    assert stat.S_IMODE(host.stat().st_mode) == 0o755
    record("F20", f"another user has made the run directory: {make.__name__}", "ERR", stopped_by=["daemon"],
           seen=str(refused.value).replace(str(shared), ""), outside=what_root_would_do(shared / "run"))  # fmt: skip


def what_root_would_do(run_dir):
    """With the directory as it is: close what is below it, wherever that is."""
    place = run_dir / "w"
    place.mkdir(exist_ok=True)
    place.chmod(0o700)
    owners = {os.stat(run_dir).st_uid, os.lstat(run_dir).st_uid}
    assert OTHER_USER in owners
    return f"closed {place.resolve().name}, of user {OTHER_USER}'s choice"
