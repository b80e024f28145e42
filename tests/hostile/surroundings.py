"""State that no attack may change: of the daemon, the host's files, the workers and their processes."""

from pathlib import Path

import psutil

from tests.docker import live

MIB = 1024 * 1024
#: What the daemon may keep of one test's jobs: their results, until they have been fetched for long enough.
ALLOWED_GROWTH = 16 * MIB
#: Runner, zygote, and the parked child with its init.
IDLE_PROCESSES = 4


class Surroundings:
    """Taken before an attack; `check` afterwards, when every job has ended."""

    def __init__(self, daemon, *, growth=ALLOWED_GROWTH):
        self._daemon = daemon
        self._growth = growth
        daemon.until(lambda: at_rest(daemon))
        self._process = psutil.Process(daemon.process.pid)
        self._fds = self._process.num_fds()
        self._rss = self._process.memory_info().rss
        self._files = _files(daemon.home)
        self._pools = _pools(daemon)
        self._workers = _workers(daemon)
        self._surplus = _surplus(daemon)

    def check(self):
        """No worker was replaced or found changed, none holds a process too many, the daemon has not grown."""
        now = _pools(self._daemon)
        assert now == self._pools, (self._pools, now, self._daemon.words())
        kept = self._workers.items() & _workers(self._daemon).items()
        assert len(self._workers) - len(kept) <= _surplus(self._daemon) - self._surplus
        assert self._process.memory_info().rss < self._rss + self._growth
        if _workers(self._daemon) == self._workers:
            self._daemon.until(lambda: self._process.num_fds() <= self._fds, timeout=120)
            changed = set(self._files.items()) ^ set(_files(self._daemon.home).items())
            assert not changed, f"{sorted(changed)} {self._daemon.words()}"
        for _, container in kept:
            self._daemon.until(lambda it=container: len(processes(it)) == IDLE_PROCESSES, timeout=120)


def processes(container):
    """As the host sees them."""
    first = psutil.Process(live.first_process(container))
    return [first, *first.children(recursive=True)]


def _pools(daemon):
    """What is counted of workers that were lost, replaced, or found with something left in them.

    A worker that is one too many has nothing to do with an attack: on a busy machine one is started for a job that waits.
    """
    return {
        pool["name"]: (_replaced(pool), pool["residue"], pool["jobs"]["lost"], pool["breaker"]["open"])
        for pool in daemon.status()["pools"]
    }


def _surplus(daemon):
    return sum(pool["recycles"].get("surplus", 0) for pool in daemon.status()["pools"])


def _replaced(pool):
    return {reason: count for reason, count in pool["recycles"].items() if reason != "surplus"}


def at_rest(daemon):
    """Whether every worker has cleaned up after its last job."""
    return all(worker["state"] == "idle" for pool in daemon.status()["pools"] for worker in pool["workers"])


def _workers(daemon):
    return {each["id"]: each["container"] for pool in daemon.status()["pools"] for each in pool["workers"]}


def _files(home: Path):
    """Path, kind, owner and size of everything below the daemon's directories but its log."""
    found = {}
    for path in sorted(home.rglob("*")):
        facts = path.lstat()
        if path.name != "log":
            sized = path.is_file() and path.suffix != ".json"  # the daemon's record of a worker counts its jobs
            found[str(path)] = (facts.st_mode, facts.st_uid, facts.st_size if sized else 0)
    return found
