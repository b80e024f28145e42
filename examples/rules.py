"""The rule families that strategies are made of: the text of each, and the values its parameters may take.

A rule looks at the days so far and says yes or no for each (`day` is a frame with high, low and close). The text goes
into the generated source as it stands, so that a strategy can be read, and run, without this file.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    choices: tuple[float, ...]  #: in order, so that a mutation can take a neighbour


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of rule. `warmup` names the parameters that, added up, are the days it needs before it can tell."""

    name: str
    parameters: tuple[Parameter, ...]
    warmup: tuple[str, ...]
    text: str
    holds: bool = False  #: it uses HOLD


HOLD = '''
def hold(buy, sell):
    """Yes from a buy to the next sell."""
    state = pd.Series(np.where(buy, 1.0, np.where(sell, 0.0, np.nan)))
    return state.ffill().fillna(0.0) > 0.5
'''

MA_CROSS = Family(
    name="ma_cross",
    parameters=(
        Parameter("fast", (2, 3, 5, 8, 10, 15, 20, 25)),
        Parameter("slow", (30, 40, 50, 75, 100, 150, 200, 250)),
    ),
    warmup=("slow",),
    text='''
def ma_cross(day, fast, slow):
    """The short moving average of the close is above the long one."""
    close = day["close"]
    return close.rolling(fast).mean() > close.rolling(slow).mean()
''',
)

RSI = Family(
    name="rsi",
    parameters=(
        Parameter("window", (2, 3, 4, 5, 7, 10, 14, 21)),
        Parameter("low", (5, 10, 15, 20, 25, 30, 35, 40)),
        Parameter("high", (50, 55, 60, 65, 70, 75, 80, 90)),
    ),
    warmup=("window",),
    holds=True,
    text='''
def rsi(day, window, low, high):
    """Bought when oversold, given back when overbought, by Wilder's relative strength index."""
    change = day["close"].diff()
    gain = change.clip(lower=0.0).ewm(alpha=1 / window, adjust=False).mean()
    loss = -change.clip(upper=0.0).ewm(alpha=1 / window, adjust=False).mean()
    strength = 100 * gain / (gain + loss)
    return hold(buy=strength < low, sell=strength > high)
''',
)

BREAKOUT = Family(
    name="breakout",
    parameters=(
        Parameter("entry", (10, 20, 40, 55, 80, 100, 150, 200)),
        Parameter("leave", (5, 10, 15, 20, 30, 40, 60, 90)),
    ),
    warmup=("entry",),
    holds=True,
    text='''
def breakout(day, entry, leave):
    """Bought above the highest high of the days before, given back under the lowest low (a Donchian channel)."""
    top = day["high"].rolling(entry).max().shift(1)
    bottom = day["low"].rolling(leave).min().shift(1)
    return hold(buy=day["close"] > top, sell=day["close"] < bottom)
''',
)

MOMENTUM = Family(
    name="momentum",
    parameters=(
        Parameter("lookback", (10, 20, 40, 60, 90, 120, 180, 240)),
        Parameter("skip", (0, 1, 5, 10, 20)),
        Parameter("least", (-0.05, -0.02, 0.0, 0.02, 0.05)),
    ),
    warmup=("lookback", "skip"),
    text='''
def momentum(day, lookback, skip, least):
    """The close has gained at least so much over the look-back, the last days left out."""
    close = day["close"].shift(skip)
    return close / close.shift(lookback) - 1 > least
''',
)

CALM = Family(
    name="calm",
    parameters=(
        Parameter("window", (5, 10, 15, 20, 30, 40, 60, 90)),
        Parameter("ceiling", (0.08, 0.1, 0.12, 0.15, 0.18, 0.22, 0.26, 0.3)),
    ),
    warmup=("window",),
    text='''
def calm(day, window, ceiling):
    """The volatility of the last days, a year's worth of it, is below a ceiling."""
    return day["close"].pct_change().rolling(window).std() * YEAR**0.5 < ceiling
''',
)

FAMILIES = {family.name: family for family in (MA_CROSS, RSI, BREAKOUT, MOMENTUM, CALM)}
