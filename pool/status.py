"""The answers of the daemon to pool-admin: the daemon fills these structs, the command line reads them.

Every field that is not needed to name its struct has a default, and unknown keys are ignored, so that pool-admin also
reads the answer of an older or newer daemon. Times are seconds, sizes bytes.
"""

from __future__ import annotations

from msgspec import Struct


class Part(Struct, frozen=True, kw_only=True):
    """Base of every part of an answer."""


# ---- status ----


class EngineStatus(Part, frozen=True, kw_only=True):
    name: str = ""
    version: str = ""
    runtime: str = ""
    cgroups: str = ""


class JournalStatus(Part, frozen=True, kw_only=True):
    """The journal: what the next daemon will find."""

    durability: str = ""  #: crash | power | none
    size_bytes: int | None = None
    problem: str | None = None  #: why no job can be accepted


class DaemonStatus(Part, frozen=True, kw_only=True):
    version: str = ""
    pid: int | None = None
    state: str = ""  #: starting | running | stopping
    uptime_s: float | None = None
    instance: str = ""  #: changes with each start
    run_dir: str = ""
    rss_bytes: int | None = None
    metrics: str | None = None  #: host:port of the endpoint for Prometheus
    journal: JournalStatus | None = None
    engine: EngineStatus | None = None  #: of the first pool
    engines: tuple[EngineStatus, ...] = ()  #: of all pools


class PoolSize(Part, frozen=True, kw_only=True):
    min: int = 0
    max: int = 0
    target: int = 0  #: the number of workers that the pool wants now


class WorkerStatus(Part, frozen=True, kw_only=True):
    id: str = ""
    container: str | None = None
    state: str = ""
    jobs: int = 0  #: leases so far
    edition: int | None = None  #: of the pool's data sets
    age_s: float | None = None
    rss_bytes: int | None = None  #: anonymous memory of its cgroup, or else the sum over its processes
    lockdown: str | None = None  #: none | unproven | broken | degraded | verified
    isolation: str | None = None
    missing: tuple[str, ...] = ()  #: parts of the isolation that this host refuses, and why
    job: str | None = None
    client: str | None = None  #: the last one it served
    uid: int | None = None
    boot_ms: float | None = None


class Percentiles(Part, frozen=True, kw_only=True):
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class BreakerStatus(Part, frozen=True, kw_only=True):
    open: bool = False
    failures: int = 0  #: in a row
    last_reason: str | None = None
    retry_in_s: float | None = None


class LastKill(Part, frozen=True, kw_only=True):
    """The latest worker that was lost to this code."""

    age_s: float | None = None
    worker: str = ""
    what: str = ""


class PoisonStatus(Part, frozen=True, kw_only=True):
    """Code to which workers were lost."""

    code: str
    kills: int = 0
    refused_until_s: float | None = None
    last: LastKill = LastKill()


class DatasetStatus(Part, frozen=True, kw_only=True):
    """The content for a worker that is started now; `problem`: why that may differ from the file."""

    path: str = ""
    digest: str | None = None
    size_bytes: int | None = None
    problem: str | None = None


class EditionStatus(Part, frozen=True, kw_only=True):
    current: int = 0
    trial: int | None = None  #: the one that a worker is trying
    reason: str | None = None  #: why the last trial failed
    retry_in_s: float | None = None


class PoolStatus(Part, frozen=True, kw_only=True):
    name: str
    state: str = ""
    ready: bool = False  #: whether a worker can take, or has taken, a job
    engine: str | None = None
    image: str | None = None
    isolation: str | None = None
    missing: tuple[str, ...] = ()
    reuse_scope: str = ""
    size: PoolSize = PoolSize()
    workers: tuple[WorkerStatus, ...] = ()
    backlog: int = 0
    running: int = 0
    jobs: dict[str, int] = {}
    hit_rate: float | None = None
    recycles: dict[str, int] = {}
    retries: int = 0  #: further attempts of jobs whose submitter allows them
    late_answers: int = 0  #: ignored: of attempts that had ended or were given up
    residue: dict[str, int] = {}
    overhead_ms: Percentiles | None = None
    queue_ms: Percentiles | None = None
    run_ms: Percentiles | None = None
    misses: int = 0  #: jobs that waited for a container to start
    failed_starts: int = 0  #: of workers
    lockdown_failures: int = 0  #: workers that broke out of their own lockdown
    breaker: BreakerStatus | None = None
    poison: tuple[PoisonStatus, ...] = ()
    datasets: dict[str, DatasetStatus | str] = {}
    edition: EditionStatus | None = None


class Alert(Part, frozen=True, kw_only=True):
    id: str = ""
    since: str = ""  #: ISO 8601
    text: str = ""


class Status(Part, frozen=True, kw_only=True):
    """The answer to `status`: the whole daemon."""

    daemon: DaemonStatus
    pools: tuple[PoolStatus, ...]
    alerts: tuple[Alert, ...] = ()


# ---- jobs ----


class JobStatus(Part, frozen=True, kw_only=True):
    id: str = ""
    pool: str = ""
    state: str = ""
    outcome: str | None = None
    client: str | None = None
    age_s: float | None = None
    worker: str | None = None


class Jobs(Part, frozen=True, kw_only=True):
    """The answer to `jobs`: the newest ones, and how many there are."""

    jobs: tuple[JobStatus, ...]
    total: int = 0


class OwnJob(Part, frozen=True, kw_only=True):
    id: str = ""
    pool: str = ""
    state: str = ""
    outcome: str | None = None
    age_s: float | None = None
    place: int | None = None  #: place in the queue of its pool, from 1; approximate where workers are bound to users


class OwnPool(Part, frozen=True, kw_only=True):
    name: str = ""
    state: str = ""
    ready: bool = False
    waiting: int = 0  #: jobs of everybody
    workers: int = 0
    datasets: tuple[str, ...] = ()


class Mine(Part, frozen=True, kw_only=True):
    """The answer to `mine`, for any submitter: his own jobs, the newest first, and the pools."""

    user: str = ""  #: his user id
    jobs: tuple[OwnJob, ...]
    total: int = 0  #: of his jobs; the oldest may not be in `jobs`
    pools: tuple[OwnPool, ...] = ()


class HistoryLine(Part, frozen=True, kw_only=True):
    age_s: float = 0.0
    state: str = ""  #: the state after it
    what: str = ""
    cause: str = ""


class TraceLine(Part, frozen=True, kw_only=True):
    step: str = ""
    us: float = 0.0  #: microseconds since the client sent the job


class History(Part, frozen=True, kw_only=True):
    """The answer to `history`: what happened to one job, worker, pool or code, oldest first."""

    id: str
    pool: str = ""
    entries: tuple[HistoryLine, ...]
    trace: tuple[TraceLine, ...] = ()  #: of a job that was submitted with `trace`


class PoolArrivals(Part, frozen=True, kw_only=True):
    """The arrivals that `pool-admin advise` replays."""

    name: str
    size: PoolSize = PoolSize()
    max_jobs: int = 0
    start_s: float | None = None  #: mean time from start to first use, of the existing workers
    worker_bytes: int | None = None  #: mean memory of the existing workers
    jobs: tuple[tuple[float, float], ...] = ()  #: the latest: when each came, and for how long it had its worker (s)


class Arrivals(Part, frozen=True, kw_only=True):
    """The answer to `arrivals`."""

    pools: tuple[PoolArrivals, ...]


# ---- doctor ----


class ProbeRow(Part, frozen=True, kw_only=True):
    """One attempt of the lockdown probe to break out, and its result."""

    probe: str = ""
    verdict: str = ""  #: held | broken | skipped
    seen: str = ""


class WorkerProbes(Part, frozen=True, kw_only=True):
    id: str = ""
    pool: str = ""
    isolation: str | None = None
    lockdown: str | None = None
    missing: tuple[str, ...] = ()
    probes: tuple[ProbeRow, ...] = ()


class Probes(Part, frozen=True, kw_only=True):
    """The answer to `doctor`: the results of each worker's lockdown probe."""

    workers: tuple[WorkerProbes, ...] = ()


# ---- what an operator has requested ----


class Action(Part, frozen=True, kw_only=True):
    """The answer to drain, resume, recycle, resize and cancel: the pools that it applies to, and a sentence."""

    pools: tuple[str, ...]
    text: str


class Pardon(Action, frozen=True, kw_only=True):
    """The answer to `pardon`."""

    codes: tuple[str, ...]
