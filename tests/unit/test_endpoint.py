"""The errors for a daemon that cannot be reached: what happened, with which value, and what to do."""

import grp
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from pool.client.endpoint import admin_endpoint, obstacle, submit_endpoint, unreachable
from pool.errors import ConfigError

SOMEBODY = 1002
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")


@pytest.fixture
def place():
    """A directory that every user may enter."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def listener(path, mode=0o600, gid=-1):
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    path.chmod(mode)
    os.chown(path, -1, gid)
    return made


def as_somebody(path):
    """The text of `obstacle` for a user without rights."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.setgroups([])
        os.setresgid(SOMEBODY, SOMEBODY, SOMEBODY)
        os.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
        os.write(writer, obstacle(f"ipc://{path}").encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as told:
        text = told.read()
    os.waitpid(child, 0)
    return text


def test_a_missing_socket_is_named_with_what_to_start_and_what_to_set(place):
    error = unreachable(f"ipc://{place}/admin.sock", 0)
    assert error.message == (
        f"no daemon: {place}/admin.sock does not exist. Start pool-daemon, or set --run-dir / POOL_RUN_DIR."
    )


@needs_root
def test_the_admin_socket_is_for_root_and_the_daemons_user(place):
    with listener(place / "admin.sock"):
        told = as_somebody(place / "admin.sock")
    assert told.startswith(f"uid 1002 may not use {place}/admin.sock (mode 0600).")
    assert told.endswith("Only root and the daemon's user may use the admin socket; try sudo.")


@needs_root
def test_the_submit_socket_names_its_group_and_the_command_that_adds_a_user(place):
    group = grp.getgrall()[-1]
    with listener(place / "submit.sock", 0o660, group.gr_gid):
        told = as_somebody(place / "submit.sock")
    assert f"group {group.gr_name}: `usermod -aG {group.gr_name} USER`, then log in again" in told


@needs_root
def test_a_directory_that_may_not_be_entered_is_named(place):
    place.chmod(0o700)
    assert as_somebody(place / "submit.sock").startswith(
        f"uid 1002 may not enter the directory of {place}/submit.sock."
    )


def test_a_daemon_that_was_killed_has_died_and_is_not_stuck(place):
    listener(place / "submit.sock").close()
    told = unreachable(f"ipc://{place}/submit.sock", 10).message
    assert "the daemon has died" in told
    assert "connection refused" in told
    assert "Start it again" in told
    assert "stuck" not in told


def test_a_daemon_that_listens_and_does_not_answer_is_stuck_or_overloaded(place):
    with listener(place / "submit.sock"):
        told = unreachable(f"ipc://{place}/submit.sock", 10).message
    assert "did not answer within 10 s" in told
    assert "stuck" in told


@pytest.mark.parametrize("find", [submit_endpoint, admin_endpoint])
@pytest.mark.parametrize("given", ["localhost:99", "tcp://localhost:99", "10.0.0.1:5555", ":99"])
def test_a_network_address_is_no_socket_path(find, given):
    with pytest.raises(ConfigError, match="is not a socket path, and the daemon listens on Unix sockets only"):
        find(given)


def test_a_file_name_with_a_colon_is_a_socket_path():
    assert submit_endpoint("./a:b.sock") == "ipc://./a:b.sock"
