"""A joblib backend: `import pool.joblib`, then `with joblib.parallel_config(backend="pool"):`.

Every task of a `joblib.Parallel` call in that block, such as the fits of a scikit-learn grid search, runs in the pool.
Its results come back as data (`pool.values`) and are never unpickled, so tasks can return numbers, arrays and frames,
but no fitted models. The worker image needs joblib and what the tasks import.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib import register_parallel_backend
from joblib.parallel import AutoBatchingMixin, ParallelBackendBase, SequentialBackend

from pool.client import Client, PoolExecutor
from pool.client.pickling import pickled
from pool.errors import PoolError
from pool.model import Limits

#: joblib runs a call with one job in the calling process, outside of any sandbox. So there are always two in flight.
_LEAST_JOBS = 2


class PoolBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """`parallel_config(backend="pool", n_jobs=4, endpoint=..., pool=..., limits=..., retries=..., client=...)`.

    `n_jobs` is the number of jobs in flight, at least 2; by default that of the cores, and -2 is one less. Calls that
    need shared memory (`require="sharedmem"`) do not come here: joblib runs them in threads of the caller. A job that
    does not end ok raises JobOutcomeError, and the others of its call are cancelled.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(  # noqa: PLR0913 - all by keyword
        self,
        *,
        endpoint: str | os.PathLike[str] | None = None,
        pool: str | None = None,
        limits: Limits | None = None,
        retries: int = 0,
        client: Client | None = None,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._options: dict[str, Any] = {"endpoint": endpoint, "pool": pool, "limits": limits, "retries": retries}
        self._options["client"] = client
        self._executor: PoolExecutor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs: 0 runs no job; give the number of jobs in flight, or -1 for the number of cores")
        cores = os.cpu_count() or 1
        wanted = n_jobs if n_jobs is not None and n_jobs > 0 else cores + 1 + (-1 if n_jobs is None else n_jobs)
        return max(_LEAST_JOBS, wanted)

    def configure(self, n_jobs: int = 1, parallel: object = None, **_: object) -> int:
        """What joblib has options of processes for (temp_folder, mmap_mode, ...) has no meaning here."""
        self.parallel = parallel
        self._executor = PoolExecutor(**self._options)
        return self.effective_n_jobs(n_jobs)

    def submit(
        self, func: Callable[[], object], callback: Callable[[Future[Any]], object] | None = None
    ) -> Future[Any]:
        """A job that runs a batch of tasks. What cannot be sent fails the future: joblib waits for each batch."""
        assert self._executor is not None, "joblib configures a backend before it submits"
        future: Future[Any]
        try:
            future = self._executor.submit(_run, pickled(func))
        except PoolError as error:
            future = Future()
            future.set_exception(error)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """The results of a batch that has ended. Raises JobOutcomeError, or the error of the pool."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: FBT001, FBT002 - joblib's
        self._end(cancel=True)
        if ensure_ready:
            self._executor = PoolExecutor(**self._options)

    def terminate(self) -> None:
        self._end(cancel=False)
        self.reset_batch_stats()

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """Calls within a task run one after the other, in the same job."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

    def _end(self, *, cancel: bool) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=cancel)


def _run(batch: bytes) -> object:
    """In the job: the batch comes as an argument, because data in it may be larger than code may be."""
    import pickle

    return pickle.loads(batch)()  # noqa: S301 - in the sandbox, as every callable is


register_parallel_backend("pool", PoolBackend)
