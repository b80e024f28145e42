"""Used by `./dev test --clock`: with libfaketime 0.9.10, which Debian 12 has, time.sleep() raises OSError if only the
clock of the day is changed. It waits for an absolute time of the monotonic clock, and libfaketime shifts that.
"""

from __future__ import annotations

import select
import time
from typing import SupportsIndex


def _sleep(duration: float | SupportsIndex, /) -> None:
    seconds = duration if isinstance(duration, float) else duration.__index__()
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select((), (), (), seconds)


time.sleep = _sleep
