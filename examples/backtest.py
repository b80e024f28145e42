"""A genome as Python source: rules, position, costs and metrics in one text that runs anywhere pandas does.

The rendered `main(split)` reads the global `datasets["prices"]`, decides at each close what to hold from the next day
on (so no rule sees the day it earns on), pays COST for what it trades, and returns plain numbers for the days before
the split and, apart from them, for the days after it.
"""

from __future__ import annotations

from examples.rules import FAMILIES, HOLD
from examples.strategies import Genome, Rule

_HEAD = '''"""{title}."""

import numpy as np
import pandas as pd

COST = 0.0005  # of the value traded, each way
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
'''

_METRICS = """
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


def main(split):
    prices = datasets["prices"]
    day = pd.DataFrame({name: prices[name] for name in ("high", "low", "close")})
    held = pd.Series(position(day)).shift(1).fillna(0.0)  # decided at one close, earned on the next day
    traded = held.diff().abs().fillna(0.0)
    returns = held * day["close"].pct_change().fillna(0.0) - COST * traded
    later = int(len(day) * split)
    return {
        "in_sample": metrics(returns[:later], traded[:later]),
        "out_of_sample": metrics(returns[later:], traded[later:]),
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
    parts = [_HEAD.format(title=describe(genome)), *extras, *(family.text for family in families), position, _METRICS]
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
