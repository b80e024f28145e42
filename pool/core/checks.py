"""Every invariant of a pool, across its collections. For the tests: too slow to run after each event in use."""

from __future__ import annotations

from pool.core.books import Books
from pool.core.records import JobRecord, PoolPhase, WorkerRecord
from pool.model import JobState, WorkerState

_ON_A_WORKER = {JobState.LEASED, JobState.RUNNING}
_UNUSED = {WorkerState.STARTING, WorkerState.IDLE, WorkerState.SUSPECT}
_AT_WORK = {WorkerState.LEASED, WorkerState.DRAINING}
_ON_ITS_WAY_OUT = {WorkerState.DRAINING, WorkerState.STOPPING}


def validate(books: Books) -> None:
    """Raise AssertionError with the record's name if anything contradicts anything."""
    books.backlog.validate()
    for worker_id, worker in books.workers.items():
        assert worker.id == worker_id
        _check_worker(books, worker)
    for job_id, job in books.jobs.items():
        assert job.id == job_id
        _check_job(books, job)
    assert set(books.backlog) <= set(books.jobs), "only jobs with a record wait"
    _check_sizes(books)


def _check_worker(books: Books, worker: WorkerRecord) -> None:
    name, state = worker.id, worker.state
    assert state is not WorkerState.GONE, f"{name} is gone and still has a record"
    assert (worker.leaving is not None) == (state in _ON_ITS_WAY_OUT), f"{name} is {state}, leaving: {worker.leaving}"
    assert (worker.due is None) == (state is WorkerState.STOPPING), f"{name} is {state}, due: {worker.due}"
    assert worker.jobs <= worker.jobs_limit <= books.policy.max_jobs, f"{name} has served {worker.jobs}"
    assert (worker.ready_at is None) <= (worker.jobs == 0), f"{name} served a job before it was ready"
    if state in _UNUSED:
        assert worker.job_id is None, f"{name} is {state} with job {worker.job_id}"
        assert not worker.code, f"{name} is {state}, and code is to blame for what becomes of it"
    if state in _AT_WORK:
        assert (worker.job_id is None) == worker.clearing, f"{name} is {state} with job {worker.job_id}"
    if worker.clearing:
        assert state in {WorkerState.LEASED, WorkerState.STOPPING}, f"{name} is {state} and clears up"
    if worker.job_id is not None:
        job = books.jobs[worker.job_id]
        assert (job.worker_id, job.epoch) == (name, worker.epoch), f"{name} and {job.id} disagree on the lease"
        assert job.state in _ON_A_WORKER, f"{name} holds {job.id}, which is {job.state}"
        assert (job.verdict is not None) == (state is WorkerState.STOPPING), f"{job.id}, verdict: {job.verdict}"


def _check_job(books: Books, job: JobRecord) -> None:
    name, state = job.id, job.state
    assert (state is JobState.QUEUED) == (name in books.backlog), f"{name} is {state}; in the backlog or not?"
    assert (state is JobState.DONE) == (job.outcome is not None), f"{name} is {state}, outcome: {job.outcome}"
    if state is JobState.QUEUED:
        assert books.poison.refused_s(job.code, books.now) is None, f"{name} waits and its code is refused"
    assert job.attempt <= 1, f"{name} was tried {job.attempt} times"
    if state in _ON_A_WORKER:
        assert job.worker_id is not None, f"{name} is {state} without a worker"
        assert books.workers[job.worker_id].job_id == name, f"{job.worker_id} does not know of {name}"


def _check_sizes(books: Books) -> None:
    policy, workers = books.policy, books.workers.values()
    staying = [worker for worker in workers if worker.leaving is None]
    starting = [worker for worker in staying if worker.state is WorkerState.STARTING]
    assert len(staying) <= policy.max_workers, f"{len(staying)} workers, at most {policy.max_workers} may be"
    assert len(starting) <= policy.start_concurrency, f"{len(starting)} starts at the same time"
    if books.outgoing is not None:
        assert books.workers.get(books.outgoing.id) is books.outgoing, "the worker being replaced is gone"
        assert books.outgoing.worn is not None, "the worker being replaced is not worn"
    if books.pool.state in {PoolPhase.STOPPING, PoolPhase.STOPPED}:
        assert not staying, "workers stay in a pool that stops"
        assert not books.backlog, "jobs wait in a pool that stops"
    if books.pool.state is PoolPhase.STOPPED:
        assert not workers, "workers in a pool that has stopped"
