"""One client process of a campaign: several threads submit jobs and wait for their results, whatever happens.

    python -m tests.chaos.submitter ENDPOINT DIRECTORY NAME SEED PAUSE

Each thread waits PAUSE seconds after each job. The process ends when its standard input is closed, after the results of what it
has submitted. A submission without an answer is asked for by its id: the daemon either has the job or does not know it.
"""

import sys
import threading
import time
from random import Random

from pool.client import Client
from pool.errors import BusyError, DaemonUnreachableError, PoolError, UnknownJobError
from pool.model import JobResult
from tests.chaos import programs
from tests.chaos.history import History

THREADS = 4
#: How long the pool may be away, from a thread's point of view.
PATIENCE_S = 120.0


class Submitter:
    def __init__(self, client: Client, history: History, name: str, seed: int, *, pause_s: float) -> None:
        self.client, self.history, self.name, self.seed = client, history, name, seed
        self.pause_s = pause_s
        self.ended = threading.Event()

    def run(self) -> None:
        threads = [threading.Thread(target=self._thread, args=(number,)) for number in range(THREADS)]
        for each in threads:
            each.start()
        sys.stdin.read()
        self.ended.set()
        for each in threads:
            each.join()

    def _thread(self, thread: int) -> None:
        rng, number = Random(f"{self.seed}/{self.name.partition('.')[2]}/{thread}"), 0
        while not self.ended.is_set():
            number += 1
            self._job(f"{self.name}-{thread}-{number}", programs.choose(rng))
            self.ended.wait(self.pause_s)

    def _job(self, job_id: str, program: programs.Program) -> None:
        self.history.add("submit", id=job_id, kind=program.kind)
        try:
            self.client.submit(program.code(job_id), job_id=job_id, limits=program.limits)
            self.history.add("acknowledged", id=job_id)
        except BusyError as error:
            self.history.add("refused", id=job_id, why=error.code)
            self.ended.wait(0.1)
            return
        except DaemonUnreachableError:
            self.history.add("unanswered", id=job_id)
        except PoolError as error:
            self.history.add("failed", id=job_id, why=f"{type(error).__name__}: {error}")
            return
        self.history.add("end", id=job_id, **ended(self.client, job_id, PATIENCE_S))


def ended(client: Client, job_id: str, patience_s: float) -> dict[str, object]:
    """How the job ended, as facts for the history."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return facts_of(client.result(job_id, timeout=patience_s))
        except UnknownJobError:
            return {"outcome": "unknown"}
        except PoolError as error:
            if time.monotonic() > deadline:
                return {"outcome": "unanswered", "reason": f"{type(error).__name__}: {error}"}
            time.sleep(0.2)


def facts_of(result: JobResult) -> dict[str, object]:
    return {
        "outcome": str(result.outcome),
        "value": result.value if isinstance(result.value, str) else None,
        "reason": result.reason,
        "worker": result.worker,
        "attempt": result.attempt,
    }


def main() -> None:
    endpoint, directory, name, seed, pause_s = sys.argv[1:]
    from pathlib import Path

    with Client(endpoint) as client, History(Path(directory), name) as history:
        Submitter(client, history, name, int(seed), pause_s=float(pause_s)).run()


if __name__ == "__main__":
    main()
