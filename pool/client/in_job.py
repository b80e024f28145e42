"""What a function finds in the job that it is sent to. In this process it is only a name that linters know."""

from __future__ import annotations

from collections.abc import Mapping

from pool.errors import PoolError


def datasets() -> Mapping[str, object]:
    """The pool's data sets, in a job: `pool.datasets()["prices"]`. Raises PoolError outside of a job.

    Source text finds the same as the variable `datasets`.
    """
    raise PoolError("pool.datasets() is for functions that run as a job; here, read the file itself")
