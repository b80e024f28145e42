"""Grades the positions of a strategy. It is sent as source text to a child that has never held the strategy's code.

The positions are untrusted data. Nothing is computed with them before they are plain, finite numbers.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

#: Positions that differ by less count as equal.
TOLERANCE = 1e-6


class ProblemError(Exception):
    """The positions cannot be graded; the message is for the author of the strategy."""


def grade(
    positions: object, close: Any, beginnings: object, lengths: list[int], more: list[int], market: dict[str, Any]
) -> dict[str, Any]:
    """The metrics, or {"problem": what is wrong with the positions}. `beginnings`: the positions without later prices,
    for each of `lengths` all of them, and for the first ones of `more` the last ones.
    """
    try:
        held = checked(positions, close.index, market["max_position"])
        for start, end, decided in of_beginnings(beginnings, lengths, more):
            dates = close.index[start:end]
            compare(held[start:end], checked(decided, dates, market["max_position"]), dates)
    except ProblemError as problem:
        return {"problem": str(problem)}
    return metrics(held, close.to_numpy(dtype=float), market["cost"], market["periods"])


def of_beginnings(beginnings: Any, lengths: list[int], more: list[int]) -> list[tuple[int, int, Any]]:
    """The first row, the end and the positions of each."""
    try:
        decided, ends = beginnings
        whole = [(0, length, each) for length, each in zip(lengths, decided, strict=True)]
        return whole + [(max(0, length - len(each)), length, each) for length, each in zip(more, ends, strict=False)]
    except (TypeError, ValueError):
        raise ProblemError("the strategy did not return positions for each beginning of the prices") from None


def checked(positions: Any, index: Any, most: float) -> Any:
    """The positions as floats, one for each price."""
    if isinstance(positions, pd.Series):
        if len(positions) == len(index) and not positions.index.equals(index):
            raise ProblemError("the positions have another index than the prices; return one position for each date")
    elif not isinstance(positions, (np.ndarray, list, tuple)):
        raise ProblemError(
            f"the strategy returned {type(positions).__name__}; return a Series, an array or a list with one position "
            "for each price"
        )
    try:
        numbers = np.asarray(positions)
        held = numbers.astype(float) if numbers.dtype.kind in "biufO" else None
    except (TypeError, ValueError, OverflowError):
        held = None
    if held is None:
        raise ProblemError(
            "the positions are not numbers; return for example 1.0 for long, 0.0 for flat, -1.0 for short"
        )
    if held.shape != (len(index),):
        raise ProblemError(f"the positions have the shape {held.shape}, the prices have {len(index)} rows")
    check_range(held, index, most)
    return held


def label(index: Any, at: int) -> str:
    """The date of a row, without a time of midnight."""
    return str(index[at]).removesuffix(" 00:00:00")


def check_range(held: Any, index: Any, most: float) -> None:
    for what, bad in (("nan", np.isnan(held)), ("infinite", np.isinf(held))):
        if bad.any():
            first = label(index, int(np.argmax(bad)))
            raise ProblemError(
                f"{int(bad.sum())} positions are {what}, first at {first}; return 0.0 where there is none"
            )
    large = np.abs(held) > most + TOLERANCE
    if large.any():
        at = int(np.argmax(large))
        raise ProblemError(
            f"the position at {label(index, at)} is {held[at]:g}; at most {most:g}, long or short, is allowed"
        )


def compare(held: Any, decided: Any, index: Any) -> None:
    differs = np.abs(held - decided) > TOLERANCE
    if differs.any():
        at = int(np.argmax(differs))
        date, last = label(index, at), label(index, len(held) - 1)
        raise ProblemError(
            f"the strategy looks ahead: its position at {date} is {held[at]:g}, and {decided[at]:g} when the prices "
            f"end at {last}; use only prices up to the date of a position (no shift(-1), no statistics of all prices, "
            "no random numbers without a seed)"
        )


def metrics(held: Any, close: Any, cost: float, periods: float) -> dict[str, Any]:
    """The metrics as plain numbers. A position is taken at one close and earns the return until the next."""
    earning = np.concatenate(([0.0], held[:-1]))
    traded = np.abs(np.diff(earning, prepend=0.0))
    returns = earning * np.concatenate(([0.0], close[1:] / close[:-1] - 1)) - cost * traded
    equity = np.cumprod(1 + np.maximum(returns, -1.0))
    total, risk = float(equity[-1]) - 1, float(returns.std(ddof=1)) * math.sqrt(periods)
    peak = np.maximum.accumulate(np.maximum(equity, 1.0))
    return {
        "sharpe": float(returns.mean()) * periods / risk if risk > 0 else 0.0,
        "total_return": total,
        "cagr": (1 + total) ** (periods / len(returns)) - 1,
        "max_drawdown": float((1 - equity / peak).max()),
        "volatility": risk,
        "trades": int((traded > TOLERANCE).sum()),
    }
