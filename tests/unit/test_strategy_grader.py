"""The grader of strategies: what it computes, and its errors for positions that it cannot use."""

import math
from itertools import count

import numpy as np
import pandas as pd
import pytest

from pool.client.strategy import (
    CUTS,
    PREFIXES,
    Market,
    StrategyRun,
    drawn_lengths,
    more_lengths,
    problem_of,
    with_prefixes,
)
from pool.client.strategy_grader import grade
from pool.errors import InvalidJobError

DATES = pd.bdate_range("2024-01-01", periods=6)
CLOSE = pd.Series([100.0, 110.0, 99.0, 99.0, 198.0, 99.0], index=DATES)
FREE = {"cost": 0.0, "periods": 252, "max_position": 1.0}
FLAT = [0.0] * 6


def graded(positions, *, prefixes=(), lengths=(), ends=(), more=(), market=FREE):
    return grade(positions, CLOSE, (list(prefixes), list(ends)), list(lengths), list(more), market)


def problem(positions, **more):
    return graded(positions, **more)["problem"]


def test_a_position_earns_the_return_of_the_next_day():
    metrics = graded([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert metrics["total_return"] == pytest.approx(0.1)
    assert metrics["trades"] == 2
    assert metrics["max_drawdown"] == 0.0


def test_the_figures_are_those_of_a_calculation_by_hand():
    metrics = graded([1.0] * 6)
    returns = np.array([0.0, 0.1, -0.1, 0.0, 1.0, -0.5])
    assert metrics["total_return"] == pytest.approx(-0.01)
    assert metrics["volatility"] == pytest.approx(returns.std(ddof=1) * math.sqrt(252))
    assert metrics["sharpe"] == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(252))
    assert metrics["max_drawdown"] == pytest.approx(0.5)
    assert metrics["cagr"] == pytest.approx(0.99 ** (252 / 6) - 1)
    assert metrics["trades"] == 1
    assert {type(each) for each in metrics.values()} == {float, int}


def test_trading_costs():
    assert graded([1.0, 0.0, 0, 0, 0, 0], market=FREE | {"cost": 0.01})["total_return"] == pytest.approx(
        1.09 * 0.99 - 1
    )


def test_a_strategy_that_loses_everything_has_finite_figures():
    metrics = grade([-1.0] * 3, pd.Series([1.0, 3.0, 1.0]), ([], []), [], [], FREE)
    assert (metrics["total_return"], metrics["cagr"], metrics["max_drawdown"]) == (-1.0, -1.0, 1.0)


def test_a_strategy_that_does_nothing_has_zeros():
    assert set(graded(FLAT).values()) == {0.0}


@pytest.mark.parametrize("positions", [FLAT, tuple(FLAT), np.zeros(6), pd.Series(FLAT, index=DATES), [False] * 6])
def test_positions_may_be_a_series_an_array_or_a_list(positions):
    assert "problem" not in graded(positions)


@pytest.mark.parametrize(
    ("positions", "said"),
    [
        (None, "returned NoneType"),
        (1.0, "returned float"),
        ({"a": 1}, "returned dict"),
        ("long", "returned str"),
        (["long"] * 6, "are not numbers"),
        ([1j] * 6, "are not numbers"),
        ([[0.0]] * 6, "have the shape (6, 1), the prices have 6 rows"),
        ([0.0] * 5, "have the shape (5,), the prices have 6 rows"),
        ([[0.0], [0.0, 1.0]], "are not numbers"),
        (pd.Series(FLAT), "another index than the prices"),
        ([0.0, math.nan, math.nan, 0, 0, 0], "2 positions are nan, first at 2024-01-02"),
        ([0.0, 0, 0, 0, 0, math.inf], "1 positions are infinite, first at 2024-01-08"),
        ([0.0, 0, 2.5, 0, 0, 0], "the position at 2024-01-03 is 2.5; at most 1"),
        ([10**400] * 6, "are not numbers"),
    ],
)
def test_what_is_wrong_with_positions_is_said(positions, said):
    assert said in problem(positions)


def test_a_strategy_whose_decisions_change_with_later_prices_looks_ahead():
    said = problem([0.0, 1.0, 0, 0, 0, 0], prefixes=[[0.0, 0.0], [0.0, 1.0, 0.0]], lengths=[2, 3])
    assert said.startswith(
        "the strategy looks ahead: its position at 2024-01-02 is 1, and 0 when the prices end at 2024-01-02"
    )


def test_the_same_decisions_on_each_beginning_are_fine():
    assert "problem" not in graded([0.0, 1.0, 0, 0, 0, 0], prefixes=[[0.0, 1.0], [0.0, 1.0, 0.0]], lengths=[2, 3])


@pytest.mark.parametrize("prefixes", [[], "ab", [None, None], [[0.0], [0.0]], [["x"] * 2, ["x"] * 3]])
def test_what_a_hostile_strategy_returns_for_the_beginnings_is_checked_too(prefixes):
    assert "problem" in grade(FLAT, CLOSE, (prefixes, []), [2, 3], [], FREE)
    assert "problem" in grade(FLAT, CLOSE, prefixes, [2, 3], [], FREE)


def test_the_last_positions_on_more_beginnings_are_compared_as_well():
    held, more = [0.0, 1.0, 0, 0, 1, 0], [4, 5, 3]
    assert "problem" not in graded(held, ends=[[0.0], np.array([0.0, 1.0])], more=more)
    assert "problem" not in graded(held, ends=[pd.Series([1.0, 0.0, 0.0], index=DATES[1:4])], more=more)
    said = problem(held, ends=[[0.0], [1.0, 0.0]], more=more)
    assert said.startswith("the strategy looks ahead: its position at 2024-01-04 is 0, and 1 when")


@pytest.mark.parametrize("ends", [None, [None], [1.0], [["x"]], [[0.0] * 9], [[math.nan]], [{}, "ab"]])
def test_what_a_hostile_strategy_returns_for_more_beginnings_is_checked_too(ends):
    assert "problem" in grade(FLAT, CLOSE, ([], ends), [], [2, 3], FREE)


STRATEGIES = {
    "a Series": lambda prices: prices * 0,
    "an array": lambda prices: np.zeros(len(prices)),
    "a list": lambda prices: [0.0] * len(prices),
}


def beginnings(strategy, rows=100):
    """The positions of the first job, and the lengths of the beginnings."""
    names = {"strategy": strategy}
    exec(with_prefixes(""), names)
    lengths, more = drawn_lengths(rows), more_lengths(20, rows)
    return names[PREFIXES](pd.Series(np.arange(float(rows))), lengths, more), lengths, more


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_fast_strategy_is_tested_on_more_beginnings(kind, monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    (decided, ends), lengths, more = beginnings(STRATEGIES[kind])
    assert [len(each) for each in decided] == lengths
    assert [len(each) for each in ends] == [16] * len(more)
    close = pd.Series(np.arange(1.0, 101.0))
    assert "problem" not in grade([0.0] * 100, close, (decided, ends), lengths, more, FREE)


def test_a_slow_strategy_is_not(monkeypatch):
    seconds = count()
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    (decided, ends), *_ = beginnings(STRATEGIES["a list"])
    assert (len(decided), ends) == (CUTS, [])


# ---- data ----


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([1.0, 2.0, 3.0], "is of type list; give a pandas Series"),
        (pd.DataFrame({"open": [1.0]}), "has the columns open; one has to be close"),
        (pd.DataFrame(), "has no columns; one has to be close"),
        (pd.Series([], dtype=float), "has 0 rows; give at least 3"),
        (pd.Series([1.0, np.nan, 2.0], index=DATES[:3]), "have 1 gap (nan, inf, 0 or below), first at 2024-01-02"),
        (pd.Series([1.0, 0.0, 2.0], index=DATES[:3]), "have 1 gap"),
        (pd.Series(["a", "b", "c"], index=DATES[:3]), "have 3 gaps"),
        (pd.Series([1.0, 2.0, 3.0], index=DATES[[0, 1, 1]]), "has the date 2024-01-02 00:00:00 more than once"),
        (pd.Series([1.0, 2.0, 3.0], index=DATES[[2, 0, 1]]), "are not in order; sort it by its index"),
        (pd.Series([1.0, 2.0, 3.0], index=[DATES[0], pd.NaT, DATES[1]]), "has a row without a date"),
        (pd.Series([1.0, 2.0, 3.0], index=[list("abc"), DATES[:3]]), "has 2 levels; give one date for each row"),
    ],
)
def test_what_is_wrong_with_the_data_is_said(data, said):
    assert said in problem_of(data)


def test_good_data_has_no_problem():
    assert problem_of(CLOSE) == ""
    assert problem_of(pd.DataFrame({"close": CLOSE, "high": CLOSE})) == ""


@pytest.mark.parametrize("rows", [3, 4, 10, 300])
def test_the_beginnings_are_drawn_from_all_of_the_prices(rows):
    data, lengths, more = StrategyRun(pd.Series(range(1, rows + 1)), Market()).prefix_inputs()
    assert lengths == sorted(set(lengths))
    assert 1 <= lengths[0] <= min(more)
    assert max(*lengths, *more) == len(data) < rows


def test_a_strategy_cannot_know_where_its_beginnings_end():
    drawn = [drawn_lengths(300) for _ in range(200)]
    assert all(len({lengths[at] for lengths in drawn}) > 20 for at in range(CUTS))
    assert max(map(max, drawn)) > 290


def test_the_parameters_of_a_market_may_be_numbers_of_numpy():
    market = Market(cost=np.float32(0.0), periods=np.int64(252))
    assert StrategyRun(CLOSE, market).grading([])["grade_args"][4] == {"cost": 0.0, "periods": 252, "max_position": 1.0}


def test_a_market_that_is_none_is_refused():
    with pytest.raises(InvalidJobError, match=r"market\.cost: got nan"):
        Market(cost=math.nan)
    with pytest.raises(InvalidJobError, match=r"market\.periods: got 0"):
        Market(periods=0)
