"""Sockets of a running daemon that another program removes are there again, with their rights; connections stay."""

import stat

import pytest

from tests.support.daemons import module_daemon, pool_of

POOLS = {"default": pool_of(1)}
DOUBLE = "def main(x): return x * 2"


daemon = module_daemon(POOLS, submit_mode="0660")


def test_a_removed_submit_socket_is_made_again(daemon):
    path = daemon.run_dir / "submit.sock"
    with daemon.client(timeout=60) as before:
        assert before.run(DOUBLE, entry="main", args=[21]).value == 42
        path.unlink()
        assert before.run(DOUBLE, entry="main", args=[21]).value == 42
        daemon.until(path.exists, timeout=20)
        with daemon.client(timeout=60) as after:
            assert after.run(DOUBLE, entry="main", args=[21]).value == 42
        assert before.run(DOUBLE, entry="main", args=[21]).value == 42
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_removed_admin_socket_is_made_again(daemon):
    path = daemon.run_dir / "admin.sock"
    path.unlink()
    daemon.until(path.exists, timeout=20)
    assert daemon.status()["daemon"]["state"] == "running"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_run_directory_that_was_moved_and_comes_back_has_its_sockets(daemon):
    aside = daemon.run_dir.with_name("aside")
    (daemon.run_dir / "submit.sock").unlink()
    daemon.run_dir.rename(aside)
    with pytest.raises(FileNotFoundError):
        (daemon.run_dir / "submit.sock").stat()
    daemon.until(lambda: "action=socket_missing" in daemon.words())
    aside.rename(daemon.run_dir)
    daemon.until((daemon.run_dir / "submit.sock").exists, timeout=20)
    with daemon.client(timeout=60) as client:
        assert client.run(DOUBLE, entry="main", args=[21]).value == 42
