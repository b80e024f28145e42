"""The examples without a pool: the same source texts, run by an in-process stand-in for the sandbox."""

import gzip
import random
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from examples import backtest, comparison, flaws, prices, strategies, summary
from examples.autonomous_loop import Loop, StalledError, parse
from examples.evaluation import Candidate, Evaluation, Evaluator, Metrics, Score, read_score
from examples.rules import FAMILIES
from examples.search import Search
from pool.config import load as load_settings
from pool.errors import ConfigError
from pool.model import JobError, JobResult, Outcome, StartKind, Timings

SPLIT = 0.7
DAYS = 1500
DEMO = Path(__file__).parents[2] / "examples" / "demo.yaml"


@pytest.fixture(scope="module")
def market():
    """A walk with a drift, in the shape of the real file."""
    rng = np.random.default_rng(1)
    days = np.empty(DAYS, dtype=prices.DAY)
    days["date"] = np.datetime64("2000-01-03") + np.arange(DAYS)
    days["close"] = 100 * np.exp(np.cumsum(rng.normal(0.0004, 0.01, DAYS)))
    days["open"] = days["close"] * (1 + rng.normal(0, 0.002, DAYS))
    days["high"] = np.maximum(days["open"], days["close"]) * 1.003
    days["low"] = np.minimum(days["open"], days["close"]) * 0.997
    return days


def call(source, market, name="main", *arguments):
    names = {"datasets": {"prices": market}}
    exec(compile(source, "strategy", "exec"), names)
    return names[name](*arguments)


def grade(positions, market, grader=backtest.GRADER):
    return call(grader, market, "grade", positions, SPLIT)


def score_of(source, market, grader=backtest.GRADER):
    return read_score(grade(call(source, market), market, grader))


def stand_in(market, seen=None):
    """Runs a text as the pool would; a text that never ends is known by its flaw and not run."""

    def run(source):
        if seen is not None:
            seen.append(source)
        timings = Timings(queue_ms=1.0, dispatch_ms=0.2, run_ms=3.0, collect_ms=0.3, total_ms=4.5)
        common = {"job_id": "j", "timings": timings, "worker": "w1", "start": StartKind.PARKED}
        if flaws.FLAWS[flaws.ENDLESS].flawed in source:
            return JobResult(outcome=Outcome.TIMEOUT, **common)
        try:
            value = call(source, market)
            return JobResult(outcome=Outcome.OK, value=value, grade=grade(value, market), **common)
        except Exception as error:  # noqa: BLE001
            return JobResult(
                outcome=Outcome.ERROR, error=JobError(type=type(error).__name__, message=str(error)), **common
            )

    return run


def search(market, *, seed=7, iterations=6, parallel=3):
    mind = Search(seed=seed, population=8)
    everything, best = [], []
    with Evaluator(stand_in(market), parallel) as evaluator:
        for _ in range(iterations):
            evaluations = evaluator.evaluate(mind.propose())
            mind.learn(evaluations)
            everything += evaluations
            best.append(mind.best)
    return everything, best


# ---- generated texts ----


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("pick", [0, -1])
def test_each_rule_family_runs_at_both_ends_of_its_parameters(family, pick, market):
    count = len(FAMILIES[family].parameters)
    picks = tuple(pick % len(FAMILIES[family].parameters[place].choices) for place in range(count))
    for side in ("long or flat", "long or short"):
        genome = strategies.Genome((strategies.Rule(family, picks),), "all", side)
        score = score_of(backtest.render(genome), market)
        assert score is not None
        assert score.in_sample.max_drawdown >= 0


def test_any_genome_renders_to_a_text_that_runs(market):
    rng = random.Random(3)
    genome = strategies.make(rng)
    for _ in range(60):
        assert score_of(backtest.render(genome), market) is not None
        genome = strategies.mutate(strategies.cross(genome, strategies.make(rng), rng), rng)
        assert 1 <= len(genome.rules) <= strategies.MOST_RULES


def test_a_position_does_not_depend_on_later_days(market):
    rng = random.Random(11)
    known = DAYS - 300
    for _ in range(40):
        source = backtest.render(strategies.make(rng))
        frame = pd.DataFrame({name: market[name] for name in ("high", "low", "close")})
        whole = call(source, market, "position", frame)
        cut = call(source, market, "position", frame[:known])
        assert (whole[:known] == cut).all()


def test_a_position_earns_from_the_next_day_on(market):
    """Prices with one jump. A rule that sees it only afterwards must not earn it."""
    jump = market.copy()
    for name in prices.COLUMNS:
        jump[name] = 100.0
        jump[name][1000:] = 200.0
    rule = strategies.Rule("breakout", (0, 7))
    score = score_of(backtest.render(strategies.Genome((rule,), "all", "long or flat")), jump)
    assert score is not None
    assert score.in_sample.trades == 1
    assert score.in_sample.cagr < 0  # it bought after the jump, paid the cost and gained nothing


def test_trading_costs_make_the_difference(market):
    rule = strategies.Rule("ma_cross", (0, 0))
    source = backtest.render(strategies.Genome((rule,), "all", "long or short"))
    dear = score_of(source, market)
    free = score_of(source, market, backtest.GRADER.replace("COST = 0.0005", "COST = 0.0"))
    assert dear is not None
    assert free is not None
    assert free.in_sample.cagr > dear.in_sample.cagr


@pytest.mark.parametrize("name", sorted(flaws.FLAWS))
def test_each_flaw_fails_in_the_way_it_says(name, market):
    rng = random.Random(2)
    for _ in range(5):
        source = flaws.spoil(backtest.render(strategies.make(rng)), name)
        result = stand_in(market)(source)
        ended = f"{result.outcome}: {result.error.type}" if result.error else str(result.outcome)
        assert ended == flaws.FLAWS[name].ends


@pytest.mark.parametrize("held", [None, [0.0] * DAYS, np.zeros(DAYS - 1), np.full(DAYS, np.nan), np.full(DAYS, 1.5)])
def test_the_grader_computes_nothing_with_positions_that_make_no_sense(held, market):
    with pytest.raises(ValueError, match="position"):
        grade(held, market)


# ---- search ----


def test_the_search_is_the_same_for_the_same_seed_whatever_the_threads_do(market):
    first, _ = search(market, parallel=1)
    second, _ = search(market, parallel=4)
    other, _ = search(market, seed=8)
    assert [each.candidate for each in first] == [each.candidate for each in second]
    assert [each.score for each in first] == [each.score for each in second]
    assert [each.candidate for each in first] != [each.candidate for each in other]


def test_the_best_never_gets_worse_and_is_never_flawed(market):
    everything, best = search(market, iterations=10)
    sharpes = [each.score.in_sample.sharpe for each in best if each is not None]
    assert sharpes == sorted(sharpes)
    assert sharpes[-1] > sharpes[0]
    assert best[-1].candidate.flaw is None
    assert any(each.candidate.flaw for each in everything)


def test_no_genome_is_tried_twice(market):
    everything, _ = search(market, iterations=10)
    genomes = [each.candidate.genome for each in everything]
    assert len(set(genomes)) == len(genomes)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "sharpe",
        {},
        {"in_sample": {"sharpe": 1.0}, "out_of_sample": {}},
        {"in_sample": {"sharpe": float("nan"), "cagr": 0.1, "max_drawdown": 0.1, "trades": 20}, "out_of_sample": 1},
    ],
)
def test_a_value_that_is_no_score_is_no_score(value):
    assert read_score(value) is None


# ---- the loop ----


def test_the_loop_prints_a_line_an_iteration_and_goes_on_past_flawed_candidates(market, tmp_path, capsys):
    absent = str(tmp_path / "none.npy")
    loop = Loop(parse(["--iterations", "4", "--population", "12", "--prices", absent, "--image", "none"]))
    loop.go(stand_in(market))
    loop.report()
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("iteration ")]) == 4
    assert loop.evaluated_ok
    assert {each.result.outcome for each in loop.evaluations} > {Outcome.OK}


def test_the_loop_says_so_when_no_worker_runs_its_jobs():
    reason = "no worker was free within 60 s"

    def run(_source):
        return JobResult(job_id="j", outcome=Outcome.TIMEOUT, reason=reason)

    with pytest.raises(StalledError, match=reason):
        Loop(parse(["--iterations", "4"])).go(run)


@pytest.mark.parametrize("wrong", ["0", "-1", "many"])
def test_a_count_that_makes_no_sense_is_a_usage_error(wrong, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--iterations", wrong])
    assert caught.value.code == 2
    assert "--iterations" in capsys.readouterr().err


# ---- summary ----


def evaluation(outcome=Outcome.OK, *, start=StartKind.PARKED, client_ms=6.0, run_ms=3.0, ended_s=0.0):
    timings = Timings(queue_ms=1.0, dispatch_ms=0.2, run_ms=run_ms, collect_ms=0.3, total_ms=run_ms + 1.5)
    genome = strategies.make(random.Random(1))
    metrics = Metrics(1.0, 0.1, 0.2, 30)
    score = Score(metrics, metrics) if outcome is Outcome.OK else None
    result = JobResult(job_id="j", outcome=outcome, timings=timings, worker="w1", start=start)
    return Evaluation(Candidate("1.1", genome, "pass", None), result, client_ms, score, ended_s)


def test_the_parts_of_the_overhead_add_up_and_killed_jobs_are_not_timed():
    parts = summary.timings([evaluation(), evaluation(Outcome.TIMEOUT, client_ms=2000.0, run_ms=10.0)])
    assert parts["overhead"]["p95"] == pytest.approx(2.0)
    assert sum(parts[name]["p50"] for name in ("dispatch", "collect", "client leg")) == pytest.approx(2.0)


def test_the_hit_rate_counts_jobs_that_found_an_idle_worker():
    jobs = [evaluation(start=start) for start in (StartKind.PARKED, StartKind.WARM, StartKind.COLD, None)]
    assert summary.hit_rate(jobs) == pytest.approx(2 / 3)
    assert summary.hit_rate([evaluation(start=None)]) is None


def test_the_summary_tells_how_long_no_job_ended_while_the_daemon_was_away():
    jobs = [evaluation(ended_s=ended_s) for ended_s in (2.0, 20.5, 9.0, 4.4, 6.7, 32.0)]
    assert summary.gaps(jobs) == [{"after_jobs": 4, "seconds": 11.5}, {"after_jobs": 5, "seconds": 11.5}]
    said = summary.text(jobs, None, None, elapsed_s=32.0)
    assert "no job ended for 11.5 s, after 4 jobs" in said


def test_a_percentile_is_one_of_the_values():
    assert summary.percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert summary.percentile(list(map(float, range(1, 101))), 0.95) == 95.0
    assert summary.percentile([1.0], 0.95) == 1.0


def test_the_summary_shows_the_source_of_the_best_and_all_outcomes(market):
    everything, best = search(market)
    compared = comparison.compare(best[-1].candidate.source, SPLIT, stand_in(market), prices_file=None, image="none")
    said = summary.text(everything, best[-1], compared, elapsed_s=1.0)
    assert "def main():" in said
    assert "docker run is left out: this process has no prices" in said
    values = summary.summarise(everything, best[-1], compared, elapsed_s=1.0)
    assert sum(values["outcomes"].values()) == len(everything)
    assert values["comparison"]["median_ms"]["pool"] > 0


# ---- prices ----


def wheel_with(path, frame):
    packed = gzip.compress(frame.to_csv(index=False).encode())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(prices.MEMBER, packed)
        archive.writestr("arch-0.dist-info/licenses/LICENSE.md", "You may use it.")
    return path


def csv_frame(market):
    columns = {name.capitalize(): market[name] for name in prices.COLUMNS}
    return pd.DataFrame({"Date": pd.Series(market["date"]).dt.strftime("%-m/%-d/%Y"), **columns})


def test_prices_come_out_of_a_wheel_with_their_licence_and_are_made_once(tmp_path, market):
    wheel = wheel_with(tmp_path / "arch-0.whl", csv_frame(market))
    output = tmp_path / "deep" / "prices.npy"
    made = prices.prepare(output, wheel=wheel, days=DAYS)
    stamp = output.stat().st_mtime_ns
    again = prices.prepare(output, wheel=tmp_path / "not there", days=DAYS)
    assert output.stat().st_mtime_ns == stamp
    assert (made == again).all()
    assert (made["date"] == market["date"]).all()
    assert made["close"] == pytest.approx(market["close"])
    assert "You may use it." in (tmp_path / "deep" / "prices.npy.txt").read_text()
    assert output.stat().st_mode & 0o444 == 0o444


def test_a_spoilt_file_is_made_again(tmp_path, market):
    wheel = wheel_with(tmp_path / "arch-0.whl", csv_frame(market))
    output = tmp_path / "prices.npy"
    output.write_bytes(b"not an array")
    prices.prepare(output, wheel=wheel, days=DAYS)
    assert len(prices.load(output, days=DAYS)) == DAYS


@pytest.mark.parametrize("spoil", ["gap", "order", "low", "short"])
def test_prices_that_cannot_be_right_are_refused(spoil, market):
    bad = market.copy()
    match spoil:
        case "gap":
            bad["close"][5] = np.nan
        case "order":
            bad["date"][5] = bad["date"][4]
        case "low":
            bad["low"][5] = bad["high"][5] * 2
        case "short":
            bad = bad[:-1]
    with pytest.raises(prices.PricesError):
        prices.check(bad, days=DAYS)


def test_a_wheel_without_the_prices_says_so_and_leaves_nothing(tmp_path, capsys):
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other/__init__.py", "")
    assert prices.main(["--output", str(tmp_path / "prices.npy"), "--wheel", str(wheel)]) == 1
    assert prices.MEMBER in capsys.readouterr().err
    assert not (tmp_path / "prices.npy").exists()


# ---- the daemon's configuration ----


def test_the_demo_configuration_is_valid_and_takes_its_paths_from_the_environment(tmp_path):
    file = tmp_path / "prices.npy"
    file.touch()
    settings = load_settings(DEMO, {"POOL_DEMO_PRICES": str(file), "POOL_RUN_DIR": "/run/other"})
    template = settings.pools["default"]
    assert template.preload.datasets == {"prices": file}
    assert str(settings.daemon.run_dir) == "/run/other"
    assert template.recycle.max_jobs == 100


def test_the_demo_configuration_says_which_variable_is_missing():
    with pytest.raises(ConfigError) as caught:
        load_settings(DEMO, {})
    assert "POOL_DEMO_PRICES" in "\n".join(caught.value.problems)
