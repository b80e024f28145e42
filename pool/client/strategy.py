"""The contract of a trading strategy, for `SandboxExecutor.execute_strategy_safe`; docs/strategies.md explains it.

    first job     the strategy on beginnings of the prices              its positions without later prices
    second job    the strategy on all prices                            its positions
    its grader    strategy_grader.py: checks the positions, compares both, computes the metrics

There are two jobs so that a strategy cannot find the later prices while it is tested for look-ahead. The beginnings are
drawn for each run: a strategy that knew where they end could look ahead everywhere else.
"""

from __future__ import annotations

import math
import re
import secrets
from dataclasses import asdict, dataclass
from importlib.resources import files
from itertools import pairwise
from typing import Any, Final

from pool.errors import InvalidJobError
from pool.units import real

ENTRY: Final = "strategy"
PREFIXES: Final = "_pool_prefixes"
#: A strategy is tested on this many beginnings. The shortest has at least this share of the prices.
CUTS: Final = 6
SHORTEST: Final = 1 / 9
#: A fast strategy is tested on up to this many more, of which its last positions are compared.
MORE_CUTS: Final = 42
_ENDS: Final = 16
#: With fewer prices the metrics have no meaning.
MIN_ROWS: Final = 3
#: Errors that do not depend on the prices.
_BEFORE_IT_RUNS: Final = (
    "SyntaxError",
    "IndentationError",
    "TabError",
    "ModuleNotFoundError",
    "ImportError",
    "NameError",
)
#: What the strategy returned, in the error of a value that cannot be carried.
_NOT_CARRIED: Final = re.compile(r"pool\.errors\.ValueCodecError: value\S* is an? ([^:;]+)")
_LINE: Final = re.compile(r" \(line (\d{1,9})\)$")  # no code has more lines, and a job may name any number
#: Calls the strategy on the beginnings, the shortest first; then on more of them, as long as no more than 0.2 s have
#: passed in all. It is added to the end of the code. Of other types than these the grader says what is wrong.
_DRIVER: Final = f"""

def {PREFIXES}(data, lengths, more):
    import time
    until, arrays = time.monotonic() + 0.2, (list, tuple, type(data.to_numpy()))
    decided, ends = [{ENTRY}(data.iloc[:length].copy()) for length in lengths], []
    for length in more:
        if time.monotonic() > until:
            break
        positions = {ENTRY}(data.iloc[:length].copy())
        try:
            ends.append((positions if isinstance(positions, arrays) else positions.iloc)[-{_ENDS}:])
        except AttributeError:
            break
    return decided, ends
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """The parameters of the metrics."""

    cost: float = 0.0005  #: of the value traded, each way
    periods: int = 252  #: rows a year
    max_position: float = 1.0  #: the largest position, long or short, as a share of the equity

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= real(value) < math.inf:
                raise InvalidJobError(f"market.{name}: got {value!r:.40}; give a finite number from 0 on")
        if not self.periods:
            raise InvalidJobError("market.periods: got 0; give the number of rows a year")


class StrategyRun:
    """The jobs of one strategy on valid data."""

    def __init__(self, data: Any, market: Market) -> None:
        if not isinstance(market, Market):
            raise InvalidJobError(f"market: it is of type {type(market).__name__}; give pool.Market")
        self._data = data
        self._market = market
        self._lengths = drawn_lengths(len(data))
        self._more = more_lengths(self._lengths[0], len(data))

    def prefix_inputs(self) -> list[object]:
        return [self._data.iloc[: max(*self._lengths, *self._more)], self._lengths, self._more]

    def grading(self, prefixes: object) -> dict[str, object]:
        """`prefixes`: the strategy's positions on each beginning."""
        return {
            "grade": grader(),
            "grade_args": [_close(self._data), prefixes, self._lengths, self._more, asdict(self._market)],
        }

    def in_words(self, error: str, code: str, *, ran: bool) -> str:
        """The sentence for the author of the strategy about an error of the first job. `ran`: it is one of the code."""
        if found := _NOT_CARRIED.match(error):
            return (
                f"the strategy returned {found[1]}; return a Series, an array or a list of numbers, one for each price"
            )
        if (line := _LINE.search(error)) and int(line[1]) > len(code.splitlines()):  # of what was added to the code
            error = error[: line.start()]
        if error.startswith(f"NameError: name '{ENTRY}' is not defined"):
            return f"the code defines no function {ENTRY}(prices)"
        if not ran or error.startswith(_BEFORE_IT_RUNS):
            return error
        first, last = self._lengths[0], max(*self._lengths, *self._more)
        return (
            f"{error}; to find out whether it looks ahead, it ran with the first {first} to {last} of the prices only"
        )


def drawn_lengths(rows: int) -> list[int]:
    """Of the beginnings: one from each of CUTS ranges. The longest lacks one price at least."""
    first = max(1, int(rows * SHORTEST))
    bounds = [first + (rows - first) * n // CUTS for n in range(CUTS + 1)]
    return [low + secrets.randbelow(high - low) for low, high in pairwise(bounds) if low < high]


def more_lengths(shortest: int, rows: int) -> list[int]:
    """Drawn from all of the prices, in no order: the strategy may have time for the first of them only."""
    return [shortest + secrets.randbelow(rows - shortest) for _ in range(MORE_CUTS)]


def with_prefixes(code: str) -> str:
    return code + _DRIVER


def grader() -> str:
    return files("pool.client").joinpath("strategy_grader.py").read_text(encoding="utf-8")


def _close(data: Any) -> Any:
    return data["close"] if data.ndim == 2 else data


# ---- data ----


def problem_of(data: Any) -> str:
    """The problem with the prices, in words; empty if they can be used."""
    import numpy as np
    import pandas as pd

    if not isinstance(data, pd.Series | pd.DataFrame):
        return f"the data is of type {type(data).__name__}; give a pandas Series of closing prices, or a DataFrame"
    if isinstance(data, pd.DataFrame) and list(data.columns).count("close") != 1:
        names = ", ".join(map(str, data.columns))
        return f"the data has {f'the columns {names:.200}' if names else 'no columns'}; one has to be close"
    if len(data) < MIN_ROWS:
        return f"the data has {len(data)} rows; give at least {MIN_ROWS}"
    if problem := _problem_of_index(data.index):
        return problem
    close = pd.to_numeric(_close(data), errors="coerce").to_numpy(dtype=float)
    bad = np.flatnonzero(~np.isfinite(close) | (close <= 0))
    if bad.size:
        gaps = "1 gap" if bad.size == 1 else f"{bad.size} gaps"
        return (
            f"the closing prices have {gaps} (nan, inf, 0 or below), first at {data.index[bad[0]]}; "
            "fill them or leave the rows out"
        )
    return ""


def _problem_of_index(index: Any) -> str:
    if index.nlevels > 1:
        return f"the index of the data has {index.nlevels} levels; give one date for each row"
    if index.hasnans:
        return "the index of the data has a row without a date; leave it out"
    if not index.is_unique:
        return f"the data has the date {index[index.duplicated()][0]} more than once; keep one row for each date"
    if not index.is_monotonic_increasing:
        return "the dates of the data are not in order; sort it by its index"
    return ""
