"""The daemon is killed before and after every write and every message; what it had acknowledged is kept all the same.

One daemon after the other serves from the same state directory, each killed at the next point, while three threads
submit jobs and ask for their results. The last one is not killed: it has to account for every job of all the others.
"""

import signal
import threading
from collections import Counter

import pytest

from pool.errors import PoolError, UnknownJobError
from pool.model import Outcome
from tests.support import failpoints
from tests.support.daemons import DaemonProcess, pool_of
from tests.support.failpoints import POINTS

POOL = pool_of(1, limits={"wall_s": 60, "cpu_s": 60})
#: Its runs are counted outside of the sandbox, which a plain process does not have. The value is large, so that kept
#: results are soon more than may be kept. The answer of every other job is so large that it is acknowledged at once.
CODE = """
def main(path, job):
    open(path, 'a').write(job + '\\n')
    return [job, 'x' * (60_000 + int(job[-1]) % 2 * 20_000)]
"""
#: Jobs are under way when the point is reached. Only the first SetFact comes without an event from outside.
PASSES = dict.fromkeys(POINTS, 5) | {"write:SetFact": 0, "written:SetFact": 0}


class Loop:
    """What the clients have seen: submitted jobs, acknowledged jobs, and answers."""

    def __init__(self, effects):
        self.effects = effects
        self.submitted, self.acknowledged, self.answers = set(), set(), {}
        self.missing = set()  # what a daemon did not know: never acknowledged, or collected and dropped
        self._lock = threading.Lock()

    def job(self, job_id):
        return {"entry": "main", "args": [str(self.effects), job_id], "job_id": job_id}

    def note(self, job_id, result):
        with self._lock:
            known = self.answers.setdefault(job_id, (result.outcome, result.value))
        assert known == (result.outcome, result.value), f"{job_id} has two ends"

    def submit_until(self, closed, client, name, earlier):
        number = 0
        while not closed.is_set():
            job_id = f"{name}-{number}"
            try:
                self.ask_again(client, earlier)
                self.submitted.add(job_id)
                client.submit(CODE, **self.job(job_id))  # perhaps once more: the same id is the same job
                self.acknowledged.add(job_id)
                self.note(job_id, client.result(job_id))
                number += 1
            except PoolError:
                closed.wait(0.02)

    def ask_again(self, client, earlier):
        """Ask for jobs of earlier rounds: too many results that nobody has collected would keep new jobs out."""
        while earlier:
            try:
                self.note(earlier[-1], client.result(earlier[-1]))
            except UnknownJobError:
                self.missing.add(earlier[-1])
            earlier.pop()

    def serve(self, daemon, name):
        """Three clients submit jobs until the daemon is killed."""
        earlier = sorted(self.submitted - self.missing)
        closed, clients = threading.Event(), [daemon.client(timeout=120) for _ in range(3)]
        threads = [
            threading.Thread(target=self.submit_until, args=(closed, client, f"{name}-{number}", earlier[number::3]))
            for number, client in enumerate(clients)
        ]
        for thread in threads:
            thread.start()
        try:
            return daemon.process.wait(180)
        finally:
            closed.set()
            for client in clients:
                client.close()
            for thread in threads:
                thread.join()
            daemon.stop(signal.SIGKILL)


def test_at_every_point_where_the_daemon_can_be_killed_what_it_acknowledged_is_kept(home, tmp_path, monkeypatch):
    loop = Loop(tmp_path / "effects")
    settings = {"home": home, "durability": "crash", "result_bytes": "1m"}
    for at, (point, passes) in enumerate(PASSES.items()):
        monkeypatch.setenv("POOL_FAILPOINT", f"{point}:{passes}")
        daemon = DaemonProcess({"default": POOL}, engine="failing", wait_ready=False, **settings)
        status = loop.serve(daemon.start(), str(at))
        assert status == -signal.SIGKILL, f"{point}: {status}, {daemon.words()}"
    with DaemonProcess({"default": POOL}, **settings) as daemon, daemon.client(timeout=60) as client:
        gone = (loop.missing & loop.acknowledged) - loop.answers.keys()
        assert not gone, f"acknowledged and gone: {gone}"
        for job_id in sorted(loop.acknowledged):
            try:
                loop.note(job_id, client.result(job_id, 60))
            except UnknownJobError:
                assert job_id in loop.answers, f"{job_id} was acknowledged and is gone"
        for job_id in sorted(
            loop.submitted - loop.acknowledged - loop.answers.keys()
        ):  # whether these arrived is not known: submit again
            loop.note(job_id, client.run(CODE, **loop.job(job_id)))
    runs = Counter(loop.effects.read_text().split())
    assert set(runs.values()) == {1}, f"ran twice: {[job_id for job_id, count in runs.items() if count > 1]}"
    for job_id, (outcome, value) in loop.answers.items():
        assert outcome in {Outcome.OK, Outcome.LOST}
        if outcome is Outcome.OK:
            assert value[0] == job_id
            assert runs[job_id] == 1
    assert len(loop.acknowledged) > len(POINTS)


def test_a_point_that_does_not_exist_cannot_be_armed():
    with pytest.raises(ValueError, match="there is no point"):
        failpoints.arm("write:Nothing", 0)
