"""After a failed fsync it is not known what is on the disk: the daemon ends, and the next one has what was acknowledged."""

from concurrent.futures import ThreadPoolExecutor

from tests.support.daemons import DaemonProcess, pool_of

POOL = pool_of(1, limits={"wall_s": 60, "cpu_s": 60})


def test_a_failed_fsync_ends_the_daemon_and_the_next_one_has_exactly_what_was_acknowledged(home):
    fails = home / "fsync-fails"
    daemon = DaemonProcess({"default": POOL}, engine="failing_fsync", home=home, durability="power")
    with daemon, daemon.client(timeout=600) as client, ThreadPoolExecutor() as threads:
        client.submit("result = 'acknowledged'", job_id="before")
        assert client.result("before").value == "acknowledged"
        fails.touch()
        unanswered = threads.submit(client.submit, "result = 1", job_id="after")
        assert daemon.process.wait(300) == 1
        assert "cannot be written: [Errno 5] Input/output error" in daemon.words()
        fails.unlink()
        daemon.start()  # as systemd does
        assert unanswered.result(timeout=600) == "after", "it was never accepted, so the client submits it again"
        assert client.result("before").value == "acknowledged"
        assert client.result("after").value == 1
