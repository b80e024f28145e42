"""A strategy of the package `backtesting`, from an unknown author, evaluated in the pool.

The candidate's class runs in the sandbox with the package's own engine. Only its trades come back, as a frame; the
grader, in another process, computes the profit from them and from prices that the candidate could not change.

The pool needs an image with `backtesting`, `preload: {modules: [backtesting]}` and `screen: {allow_modules:
[backtesting]}`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pool import ExecutionResult, SandboxExecutor

CANDIDATE = """
import pandas as pd
from backtesting import Strategy

class Candidate(Strategy):
    def init(self):
        self.mean = self.I(lambda close: pd.Series(close).rolling(20).mean(), self.data.Close)

    def next(self):
        if self.data.Close[-1] > self.mean[-1] and not self.position:
            self.buy(size=10)
        elif self.data.Close[-1] < self.mean[-1]:
            self.position.close()
"""
RUN = """

def trades(prices):
    from backtesting import Backtest

    stats = Backtest(prices, Candidate, cash=100_000, finalize_trades=True).run()
    return stats["_trades"][["Size", "EntryBar", "ExitBar"]]
"""
GRADER = """
def grade(trades, prices):
    if not ((trades.EntryBar >= 0) & (trades.EntryBar <= trades.ExitBar) & (trades.ExitBar < len(prices))).all():
        raise ValueError("a trade lies outside of the prices")
    opens = prices.Open.to_numpy()
    gains = trades.Size.to_numpy() * (opens[trades.ExitBar] - opens[trades.EntryBar])
    return {"profit": float(gains.sum()), "trades": float(len(trades))}
"""


def prices_of(days: int = 300) -> pd.DataFrame:
    """Made-up prices that rise and fall, the same each time."""
    close = 100 + 20 * np.sin(np.arange(days) / 15)
    columns = {"Open": close, "High": close + 1, "Low": close - 1, "Close": close, "Volume": 1000.0}
    return pd.DataFrame(columns, index=pd.bdate_range("2024-01-01", periods=days))


def evaluate(sandbox: SandboxExecutor, candidate: str) -> ExecutionResult:
    """`metrics` has profit and trades; `error` says what is wrong with the candidate."""
    prices = prices_of()
    return sandbox.execute(candidate + RUN, [prices], entry="trades", timeout=60, grade=GRADER, grade_args=[prices])


if __name__ == "__main__":
    with SandboxExecutor() as sandbox:
        result = evaluate(sandbox, CANDIDATE)
    print(result.metrics if result.success else result.error)
