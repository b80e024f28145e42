"""The options of a job, as a user gives them to `run`, `submit`, `map` and the executors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypedDict

from pool.client.checks import Buffer
from pool.model import Limits

Code = str | Callable[..., object]
OnDisconnect = Literal["cancel", "keep"]

ON_DISCONNECT = ("cancel", "keep")


class Program(NamedTuple):
    """The code frame and how to read it."""

    frame: bytes
    entry: str | None = None
    pickled: bool = False
    python: str = ""


class JobOptions(TypedDict, total=False):
    """The options of a job besides its code. None is the same as leaving the option out.

    The code's entry may be anything that can be called. A coroutine function is run to its end. The value has to be
    data: for a generator, asynchronous or not, return `list(...)` of it. At the end of the code, threads that are not
    daemons are joined, exit handlers run and open files are written out, all within the job's time.
    """

    entry: str | None  #: the function of the source text to call; None: a script, whose variable `result` is the value
    args: Sequence[object]
    kwargs: Mapping[str, object] | None
    stdin: Buffer | str | None
    files: Mapping[str, Buffer] | None  #: names or relative paths to contents, put into the job's work directory
    env: Mapping[str, str] | None
    argv: Sequence[str] | None  #: what follows "job.py" in sys.argv: at most 256 texts of 8,192 characters
    limits: Limits | None
    seed: int | None  #: 0 to 2**32 - 1: for random and numpy.random, not for default_rng() without a seed
    pool: str | None
    priority: int  #: -100 to 100; higher goes first among the jobs of one client
    job_id: str | None  #: the same id again is the same job; None: a new one
    queue_timeout: float | None  #: seconds the job may wait for a worker
    retries: int  #: 0 to 10: further attempts if the worker, its container or the daemon fails; never after an own end
    strip_fences: bool  #: of source text in Markdown run the first block of Python; otherwise fences are a SyntaxError
    on_disconnect: OnDisconnect | None  #: what becomes of the job when this client vanishes before its end
    #: Grades the value, in another child, which has never held the job's code: source text with a function
    #: `grade(value, *grade_args)`, or a callable. The job cannot see it or its arguments. The job's limits hold for it.
    grade: Code | Program | None
    grade_args: Sequence[object]
    trace: bool  #: note when each step of the job was done: `JobResult.trace`, `pool-admin job ID --trace`
    explain_denials: bool  #: write each system call that the sandbox denies, and the line that made it, to stderr
