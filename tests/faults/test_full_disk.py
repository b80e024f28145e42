"""A full disk: new jobs are refused with an error, accepted ones go on, and nothing has to be restarted."""

import time

import pytest

from pool.errors import StorageFullError
from tests.support.daemons import DaemonProcess, pool_of
from tests.support.small_disk import mounted

POOL = pool_of(1, limits={"wall_s": 60, "cpu_s": 60})
WAITS = (
    "import os, time\ndef main(path):\n    while not os.path.exists(path): time.sleep(0.05)\n    return 'x' * 50_000"
)


@pytest.fixture
def disk(home):
    """The home of a daemon whose journal is on a file system of 4 MiB."""
    journal = home / "state" / "journal"
    journal.mkdir(parents=True, mode=0o700)
    with mounted(journal, "size=4m"):
        yield home


def fill(path):
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError:
            pass


def test_on_a_full_disk_jobs_are_refused_results_are_served_and_room_is_noticed_without_a_restart(disk, tmp_path):
    go, filler = tmp_path / "go", disk / "state" / "journal" / "filler"
    with DaemonProcess({"default": POOL}, home=disk, durability="crash") as daemon:
        with daemon.client(timeout=60) as client:
            done = client.submit("result = 'done'")
            assert client.result(done).value == "done"
            running = client.submit(WAITS, entry="main", args=[str(go)])
            daemon.until(lambda: daemon.pool()["running"] == 1)
            fill(filler)
            with pytest.raises(StorageFullError) as caught:
                [client.submit("result = 1", stdin="x" * 50_000) for _ in range(1000)]
            assert caught.value.fields["directory"] == str(disk / "state" / "journal")
            assert "no space is left" in caught.value.message
            assert caught.value.fields["retry_after_s"] > 0
            daemon.until(lambda: daemon.status()["daemon"]["journal"]["problem"])
            assert "journal:room" in [alert["id"] for alert in daemon.status()["alerts"]]
            assert client.result(done).value == "done"
            go.touch()
            assert client.result(running).value == "x" * 50_000
            filler.unlink()
            daemon.until(lambda: daemon.status()["daemon"]["journal"]["problem"] is None)
            later = client.submit("result = 'later'")
            assert client.result(later).value == "later"
        daemon.kill()
    with DaemonProcess({"default": POOL}, home=disk, durability="crash") as daemon, daemon.client() as client:
        assert client.result(running).value == "x" * 50_000, "it was written when there was room"
        assert client.result(later).value == "later"


def test_a_client_that_may_wait_gets_its_jobs_through_when_there_is_room_again(disk):
    filler = disk / "state" / "journal" / "filler"
    with DaemonProcess({"default": POOL}, home=disk, durability="crash") as daemon, daemon.client() as client:
        assert client.run("result = 1").value == 1
        fill(filler)
        jobs = client.map("def main(n, text): return n", ([n, "x" * 50_000] for n in range(10)), entry="main")
        daemon.until(lambda: daemon.status()["daemon"]["journal"]["problem"])
        filler.unlink()
        started = time.monotonic()
        assert [result.value for result in jobs] == list(range(10))
        assert time.monotonic() - started < 120


def test_a_job_that_is_too_large_for_the_room_is_refused_and_the_next_daemon_has_every_accepted_one(disk):
    """There is room for a probe, and for small jobs."""
    with DaemonProcess({"default": POOL}, home=disk, durability="crash") as daemon:
        with daemon.client(timeout=60) as client:
            small = client.submit("result = 'small'")
            with pytest.raises(StorageFullError, match="no space is left"):
                client.submit("def main(data): return 1", entry="main", args=[bytes(6_000_000)])
            assert client.result(small).value == "small"
            later = client.submit("result = 'later'")
            assert client.result(later).value == "later"
        daemon.kill()
    with DaemonProcess({"default": POOL}, home=disk, durability="crash") as daemon, daemon.client() as client:
        assert [client.result(each).value for each in (small, later)] == ["small", "later"]
