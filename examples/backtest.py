"""A genome as Python source, and the grader of what such a source returns: two texts that never share a process.

    source    main(): reads the global `datasets["prices"]` and decides at each close what to hold from the next day on
    GRADER    grade(held, split): what that earns, with COST for what is traded, in plain numbers: for the days before
              the split and, apart from them, for the days after it

A source that replaced pandas, or invented its own figures, would change nothing but what it holds.
"""

from __future__ import annotations

from examples.rules import FAMILIES, HOLD
from examples.strategies import Genome, Rule

_HEAD = '''"""{title}."""

import numpy as np
import pandas as pd

YEAR = 252  # trading days
'''

_POSITION = '''
def position(day):
    """What to hold, as decided at each close."""
    rules = [
{calls}
    ]
    votes = sum(rule.astype(int) for rule in rules)
    wanted = np.where(votes >= {quorum}, 1.0, {otherwise})  # {combine} of {count}
    wanted[:{warmup}] = 0.0
    return wanted


def main():
    prices = datasets["prices"]
    return position(pd.DataFrame({{name: prices[name] for name in ("high", "low", "close")}}))
'''

#: The positions are data that a stranger made: they are checked before anything is computed with them.
GRADER = """
import numpy as np
import pandas as pd

COST = 0.0005  # of the value traded, each way
YEAR = 252  # trading days


def grade(held, split):
    close = pd.Series(datasets["prices"]["close"])
    if not isinstance(held, np.ndarray) or held.dtype != float or held.shape != close.shape:
        raise ValueError("the positions are no array of one float for each day")
    if not (np.abs(held) <= 1).all():
        raise ValueError("a position is not between -1 and 1")
    held = pd.Series(held).shift(1).fillna(0.0)  # decided at one close, earned on the next day
    traded = held.diff().abs().fillna(0.0)
    returns = held * close.pct_change().fillna(0.0) - COST * traded
    later = int(len(close) * split)
    return {
        "in_sample": metrics(returns[:later], traded[:later]),
        "out_of_sample": metrics(returns[later:], traded[later:]),
    }


def metrics(returns, traded):
    equity = (1 + returns).cumprod()
    years = len(returns) / YEAR
    risk = returns.std() * YEAR**0.5
    return {
        "sharpe": float(returns.mean() * YEAR / risk) if risk > 0 else 0.0,
        "cagr": float(equity.iloc[-1] ** (1 / years) - 1),
        "max_drawdown": float((1 - equity / equity.cummax().clip(lower=1.0)).max()),
        "trades": int((traded > 0).sum()),
    }

"""


def render(genome: Genome) -> str:
    """The source text of a genome; the same genome always renders to the same text."""
    families = [FAMILIES[name] for name in sorted({rule.family for rule in genome.rules})]
    extras = [HOLD] if any(family.holds for family in families) else []
    position = _POSITION.format(
        calls="\n".join(f"        {call(rule)}," for rule in genome.rules),
        quorum=genome.quorum,
        otherwise="0.0" if genome.side == "long or flat" else "-1.0",
        combine=genome.combine,
        count=len(genome.rules),
        warmup=max(warmup(rule) for rule in genome.rules),
    )
    parts = [_HEAD.format(title=describe(genome)), *extras, *(family.text for family in families), position]
    return "\n".join(parts)


def call(rule: Rule) -> str:
    arguments = "".join(f", {name}={value}" for name, value in rule.values.items())
    return f"{rule.family}(day{arguments})"


def warmup(rule: Rule) -> int:
    return int(sum(rule.values[name] for name in FAMILIES[rule.family].warmup)) + 1


def describe(genome: Genome) -> str:
    """One line for people."""
    rules = [f"{rule.family}({', '.join(f'{value:g}' for value in rule.values.values())})" for rule in genome.rules]
    joined = rules[0] if len(rules) == 1 else f"{genome.combine} of {', '.join(rules)}"
    return f"{joined[0].upper()}{joined[1:]}: {genome.side}"
