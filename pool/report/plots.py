"""The plots of the report, with matplotlib. Raises ImportError where it is not installed (extra `report`)."""

from __future__ import annotations

from pathlib import Path

from pool.report.decision import ARMS, Results, figures


def draw(results: Results, directory: Path) -> list[str]:
    """Write the plots. Returns the names of their files."""
    names = ["overhead.png"]
    _overhead(results, directory / names[0])
    if results.parallel:
        names.append("parallel.png")
        _parallel(results, directory / names[1])
    return names


def _overhead(results: Results, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name in ARMS:
        found = [figures(case.samples.get(name, ())) for case in results.cases]
        points = [(each.run_s, each.overhead_s) for each in found if each is not None]
        if points:
            axes.loglog(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel="backtest, seconds", ylabel="overhead, seconds (median)", title="What each way adds to a backtest")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def _parallel(results: Results, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for seconds in dict.fromkeys(each.seconds for each in results.parallel):
        rows = [each for each in results.parallel if each.seconds == seconds]
        faster = [rows[0].wall_s / each.wall_s for each in rows]
        axes.plot([each.at_once for each in rows], faster, marker="o", label=f"{seconds * 1000:g} ms each")
    axes.set(xlabel="backtests in flight", ylabel="times faster than one at a time", title="Side by side in the pool")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
