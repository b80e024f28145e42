"""Typical mistakes of generated code: each function turns a correct source text into one with a mistake.

Each flaw is one replacement in the text that backtest.py renders. `ENDS` names how the job is expected to end.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

BROKEN_SHARE = 0.10
ENDLESS_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Flaw:
    sound: str
    flawed: str
    ends: str  #: the outcome, and for an error its type


_RETURN = "    return wanted\n"

FLAWS: Mapping[str, Flaw] = MappingProxyType(
    {
        "a colon forgotten": Flaw("def position(day):", "def position(day)", "error: SyntaxError"),
        "a name that is not there": Flaw(_RETURN, "    return np.sign(signal)\n", "error: NameError"),
        "a wrong shape": Flaw(_RETURN, '    return wanted * np.diff(day["close"])\n', "error: ValueError"),
        "a division by zero": Flaw(
            _RETURN,
            "    ruined = int((wanted < -1).sum())\n    return wanted * (1 / ruined)\n",
            "error: ZeroDivisionError",
        ),
        "a loop that never ends": Flaw(
            _RETURN,
            "    weight = 1.0\n    while weight != 0.3:\n        weight -= 0.1\n    return wanted * weight\n",
            "timeout",
        ),
    }
)
ENDLESS = "a loop that never ends"


def draw(rng: random.Random) -> str | None:
    """Which flaw the next candidate gets; mostly none."""
    chance = rng.random()
    if chance < ENDLESS_SHARE:
        return ENDLESS
    if chance < ENDLESS_SHARE + BROKEN_SHARE:
        return rng.choice([name for name in FLAWS if name != ENDLESS])
    return None


def spoil(source: str, name: str) -> str:
    """The source with that flaw in it."""
    flaw = FLAWS[name]
    if source.count(flaw.sound) != 1:
        raise ValueError(f"the source has no single place for {name}")
    return source.replace(flaw.sound, flaw.flawed)
