"""Samples of the daemon's memory during a run, to show that it does not grow."""

import threading
from typing import NamedTuple, Self

import psutil

_EVERY_S = 0.5
#: Jobs after which everything that is kept on purpose (results for a while, histories up to their bound) is there.
WARM_JOBS = 1000
MOST_GROWTH_BYTES = 16 << 20


class Sample(NamedTuple):
    jobs: int
    rss: int


class Watch:
    """`with Watch(pid) as watch:` and `watch.job()` for each job that has ended."""

    def __init__(self, pid: int) -> None:
        self.samples: list[Sample] = []
        self._process = psutil.Process(pid)
        self._jobs = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory of the daemon", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def job(self) -> None:
        with self._lock:
            self._jobs += 1

    @property
    def warm(self) -> Sample | None:
        """The first sample that counts; None after too few jobs."""
        return next((sample for sample in self.samples if sample.jobs >= WARM_JOBS), None)

    @property
    def growth(self) -> int | None:
        """Bytes of the highest sample above the first that counts."""
        if self.warm is None:
            return None
        return max(sample.rss for sample in self.samples if sample.jobs >= WARM_JOBS) - self.warm.rss

    def _sample(self) -> None:
        while not self._over.wait(_EVERY_S):
            self.samples.append(Sample(self._jobs, self._process.memory_info().rss))
