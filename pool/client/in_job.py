"""Names that exist in a job. In this process they are placeholders for linters."""

from __future__ import annotations

from collections.abc import Mapping

from pool.errors import PoolError


def datasets() -> Mapping[str, object]:
    """The pool's data sets, in a job: `pool.datasets()["prices"]`. Raises PoolError outside of a job.

    Source text finds the same as the variable `datasets`.
    """
    raise PoolError("pool.datasets() is for functions that run as a job; here, read the file itself")
