"""Jobs and results of a daemon that was killed, in the next daemon. Workers are plain processes."""

import os
import shutil
import signal
import time

import pytest

from pool.daemon.journal_entries import Accept
from pool.daemon.journal_file import JournalFile
from pool.errors import JobConflictError, StorageFullError, UnknownJobError
from pool.model import Outcome
from tests.support.daemons import DaemonProcess, pool_of

POOL = pool_of(1, limits={"wall_s": 60, "cpu_s": 60})
#: Counts its runs outside of the sandbox, which a plain process does not have.
COUNTED = "def main(path, number):\n    open(path, 'a').write(f'{number}\\n')\n    return number"
SLOW = "import time\ndef main(path):\n    open(path, 'a').write('slow\\n')\n    time.sleep(600)"


@pytest.fixture
def start(home):
    started = []

    def start_it(*, durability="crash", pools=None, wait_ready=True, **settings):
        daemon = DaemonProcess(
            pools or {"default": POOL}, home=home, durability=durability, wait_ready=wait_ready, **settings
        )
        started.append(daemon)
        return daemon.start()

    yield start_it
    for each in started:
        each.stop(signal.SIGKILL)


def kill_with_workers(daemon):
    """Kill the daemon and its workers, so that no job goes on."""
    pids = [daemon.pid_of(worker) for worker in daemon.workers()]
    daemon.stop(signal.SIGKILL)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def runs(path):
    return path.read_text().split() if path.exists() else []


def test_after_kill_9_finished_running_and_waiting_jobs_have_exactly_one_end_each(start, tmp_path):
    effects = tmp_path / "effects"
    first = start()
    with first.client() as client:
        finished = [client.submit(COUNTED, entry="main", args=[str(effects), n]) for n in range(5)]
        values = [client.result(job_id).value for job_id in finished]
        running = client.submit(SLOW, entry="main", args=[str(effects)])
        first.until(lambda: "slow" in runs(effects))
        waiting = [client.submit(COUNTED, entry="main", args=[str(effects), n]) for n in range(5, 15)]
    kill_with_workers(first)
    second = start()
    with second.client(timeout=60) as client:
        assert [client.result(job_id).value for job_id in finished] == values == [0, 1, 2, 3, 4]
        lost = client.result(running)
        assert lost.outcome is Outcome.LOST
        assert "while worker default-1 had the job" in lost.reason
        assert (lost.worker, lost.attempt) == ("default-1", 1)
        results = [client.result(job_id, 60) for job_id in waiting]
        assert [result.value for result in results] == list(range(5, 15))
        assert client.result(running) == lost, "the answer stays the same"
    assert runs(effects) == [*map(str, range(5)), "slow", *map(str, range(5, 15))], "each ran once, in order"


def test_the_same_submission_is_the_same_job_after_a_restart_and_another_one_is_a_conflict(start, tmp_path):
    effects = tmp_path / "effects"
    job = {"entry": "main", "args": [str(effects), 1], "job_id": "mine"}
    first = start()
    with first.client() as client:
        assert client.run(COUNTED, **job).value == 1
    first.stop(signal.SIGKILL)
    second = start()
    with second.client() as client:
        assert client.run(COUNTED, **job).value == 1
        assert runs(effects) == ["1"]
        with pytest.raises(JobConflictError, match="already used for another job"):
            client.run(COUNTED, **job | {"args": [str(effects), 2]})


def test_a_client_that_waits_through_a_restart_gets_its_results(start, tmp_path):
    effects = tmp_path / "effects"
    first = start()
    with first.client(timeout=60) as client:
        slow = client.submit("import time; time.sleep(600)")
        first.until(lambda: first.pool()["running"] == 1)
        waits = client.connection.watch(client.submit(COUNTED, entry="main", args=[str(effects), 7]))
        kill_with_workers(first)
        second = start(wait_ready=False)
        assert client.to_result(waits.result(120)).value == 7
        assert client.result(slow).outcome is Outcome.LOST
    second.stop()


def test_at_sigterm_waiting_jobs_are_left_to_the_next_daemon(start, tmp_path):
    effects = tmp_path / "effects"
    first = start(drain_timeout_s=0.1)
    with first.client() as client:
        client.submit("import time; time.sleep(600)")
        first.until(lambda: first.pool()["running"] == 1)
        job_id = client.submit(COUNTED, entry="main", args=[str(effects), 1])
    assert first.stop() == 0
    second = start()
    with second.client() as client:
        assert client.result(job_id).value == 1
    assert runs(effects) == ["1"]


def test_large_arguments_and_results_come_back_after_a_restart(start):
    data = bytes(range(256)) * 4096
    first = start()
    with first.client() as client:
        blocker = client.submit("import time; time.sleep(600)")
        first.until(lambda: first.pool()["running"] == 1)
        waiting = client.submit("def main(data): return data[::-1]", entry="main", args=[data])
    bodies = first.state_dir / "journal" / "bodies"
    assert [path.suffix for path in bodies.iterdir()] == [".job"]
    kill_with_workers(first)
    second = start()
    with second.client() as client:
        assert client.result(waiting).value == data[::-1]
        assert client.result(blocker).outcome is Outcome.LOST
    second.stop(signal.SIGKILL)
    third = start()
    with third.client() as client:
        assert client.result(waiting).value == data[::-1]
    assert [path.suffix for path in bodies.iterdir()] == [".result"]


def test_results_are_dropped_from_the_journal_at_the_end_of_their_time(start):
    first = start(result_ttl_s=1)
    with first.client() as client:
        assert client.run("result = 1", job_id="j").value == 1
    first.stop(signal.SIGKILL)
    time.sleep(1)
    second = start(result_ttl_s=1)
    with second.client() as client, pytest.raises(UnknownJobError):
        client.result("j")


def test_worker_names_are_not_used_again_by_the_next_daemon(start):
    first = start()
    names = {worker["id"] for worker in first.workers()}
    first.stop()
    assert names.isdisjoint(worker["id"] for worker in start().workers())


def test_a_job_of_a_pool_that_is_gone_ends_and_says_so(start):
    first = start(pools={"default": POOL, "other": POOL})
    with first.client() as client:
        client.submit("import time; time.sleep(600)", pool="other")
        first.until(lambda: first.pool("other")["running"] == 1)
        job_id = client.submit("result = 1", pool="other")
    kill_with_workers(first)
    with start().client() as client:
        result = client.result(job_id)
    assert (result.outcome, result.worker) == (Outcome.LOST, None)
    assert "no pool other" in result.reason


def test_a_journal_that_cannot_be_read_is_set_aside_and_the_daemon_starts_and_says_so(start):
    first = start()
    first.stop()
    journal = first.state_dir / "journal" / "journal.db"
    journal.write_bytes(b"no database " * 1000)
    second = start()
    with second.client() as client:
        assert client.run("result = 1").value == 1
    (alert,) = [alert for alert in second.status()["alerts"] if alert["id"] == "journal:unreadable"]
    assert "journal.corrupt-" in alert["text"]
    assert "was set aside" in second.log.read_text()


def test_a_job_that_cannot_be_read_is_dropped_and_does_not_stop_the_others(start):
    first = start()
    with first.client() as client:
        job_id = client.submit("result = 1")
        assert client.result(job_id).value == 1
    first.stop()
    file = JournalFile(first.state_dir / "journal", fsync=False)
    file.commit([Accept(99, "0/unreadable", "default", b"digest", b"no header", (), 0.0)])
    file.close()
    second = start()
    with second.client() as client:
        assert client.result(job_id).value == 1
        for _ in range(3):
            assert client.run("result = 2").value == 2
    assert "cannot be read and is dropped" in second.log.read_text()
    second.stop()
    file = JournalFile(first.state_dir / "journal", fsync=False)
    assert "0/unreadable" not in [row.key for row in file.rows()]
    file.close()


def test_without_durability_nothing_is_written(start):
    first = start(durability="none")
    with first.client() as client:
        assert client.run("result = 1").value == 1
    assert not (first.state_dir / "journal").exists()
    assert first.status()["daemon"]["journal"] == {"durability": "none", "size_bytes": None, "problem": None}


def test_with_power_durability_jobs_run_and_survive(start):
    first = start(durability="power")
    with first.client() as client:
        job_id = client.submit("result = 1")
        assert client.result(job_id).value == 1
    first.stop(signal.SIGKILL)
    with start(durability="power").client() as client:
        assert client.result(job_id).value == 1


def test_a_journal_that_is_removed_under_the_daemon_is_an_alert_and_no_job_is_accepted(start):
    daemon = start()
    with daemon.client(timeout=60) as client:
        finished = client.submit("result = 1")
        assert client.result(finished).value == 1
        shutil.rmtree(daemon.state_dir / "journal")
        daemon.until(lambda: "was removed" in str(daemon.status()["alerts"]))
        with pytest.raises(StorageFullError, match="was removed or replaced, so no job can be accepted; start"):
            client.submit("result = 2")
        assert client.result(finished).value == 1


def test_a_journal_that_is_truncated_under_the_daemon_is_an_alert_and_the_next_daemon_says_that_it_cannot_be_read(
    start,
):
    daemon = start()
    with daemon.client(timeout=60) as client:
        finished = client.submit("result = 1")
        assert client.result(finished).value == 1
        os.truncate(daemon.state_dir / "journal" / "journal.db", 0)
        daemon.until(lambda: "was truncated" in str(daemon.status()["alerts"]))
        with pytest.raises(StorageFullError, match="was truncated or overwritten, so no job can be accepted; start"):
            client.submit("result = 2")
        assert client.result(finished).value == 1
    daemon.stop(signal.SIGKILL)
    second = start()
    with second.client() as client:
        assert client.run("result = 3").value == 3
    assert "journal:unreadable" in [alert["id"] for alert in second.status()["alerts"]]


def test_results_that_nobody_has_collected_are_on_the_disk_and_not_in_the_memory_of_the_daemon(start):
    daemon = start()
    code = "def main(n):\n    return bytes([n]) * 8_000_000"
    with daemon.client(timeout=60) as client:
        assert client.run(code, entry="main", args=[255]).ok
        before = daemon.private_bytes()
        ids = [client.submit(code, entry="main", args=[n], on_disconnect="keep") for n in range(20)]
    daemon.until(lambda: not daemon.pool()["backlog"] and not daemon.pool()["running"])
    daemon.until(lambda: daemon.private_bytes() - before < 40_000_000, timeout=60)
    with daemon.client(timeout=60) as client:
        assert [client.result(job_id).value for job_id in ids] == [bytes([n]) * 8_000_000 for n in range(20)]
