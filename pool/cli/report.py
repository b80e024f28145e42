"""`pool-admin report`: measures the cost of the sandbox on this machine and writes the report with the decision."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pool._version import __version__
from pool.cli.answer import ExitStatus, address, answering, complain
from pool.errors import ConfigError, PoolError

if TYPE_CHECKING:
    from pool.client.sandbox import SandboxExecutor
    from pool.report.arms import WarmPool
    from pool.report.decision import Results
    from pool.report.measure import Parallel

#: Lengths of backtests, in seconds: three short ones, and those of real backtests.
SECONDS = (0.005, 0.02, 0.1, 1.0, 3.0, 5.0)
#: The lengths that are run in parallel, and the number of runs.
PARALLEL_SECONDS = (0.02, 1.0)
PARALLEL_JOBS = 16
_LONGEST_S = 600.0


def report(
    context: typer.Context,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write the report.")] = Path("pool-report"),
    iterations: Annotated[
        int, typer.Option("--iterations", min=1, max=10_000, help="How often each way is run at each length.")
    ] = 20,
    seconds: Annotated[
        list[float] | None,
        typer.Option("--backtest", metavar="SECONDS", help="A length of the backtest; may be repeated."),
    ] = None,
    pool: Annotated[str, typer.Option("--pool", help="The pool to measure.")] = "default",
    image: Annotated[
        str, typer.Option("--image", help="The image of the cold containers; needs the Docker Engine.")
    ] = "pool-worker:latest",
    cold: Annotated[bool, typer.Option("--cold/--no-cold", help="Compare with a container for each run.")] = True,
    parallel: Annotated[bool, typer.Option("--parallel/--no-parallel", help="Also run backtests in parallel.")] = True,
) -> None:
    """Measure what the sandbox costs here, and decide whether to enable it by default.

    Runs backtests of several lengths in this process behind the screen, in a container started for each, and in the
    pool; some small programs that have to fail; and several backtests at a time. Writes report.md, report.json and, if
    matplotlib is installed, plots. Takes 10 minutes; --iterations and --backtest make it shorter. The daemon has to
    run, and its pool has to have numpy and pandas. Exit status 1 if the decision is not to enable the sandbox.
    """
    lengths = sorted(set(seconds or SECONDS))
    for each in lengths:
        if not 0.001 <= each <= _LONGEST_S:
            raise typer.BadParameter(f"{each:g} is not between 0.001 and {_LONGEST_S:g}", param_hint="--backtest")
    with answering(as_json=False):
        from pool.client.sandbox import SandboxExecutor

        _check_libraries()
        _make(out)
        with SandboxExecutor(address(context).submit, pool=pool, enabled=True) as sandbox:
            results = _measure(sandbox, lengths, iterations=iterations, image=image if cold else "", parallel=parallel)
        enable = _write(results, out)
    if not enable:
        raise typer.Exit(ExitStatus.ERROR)


def _check_libraries() -> None:
    try:
        import pandas as pd  # noqa: F401
    except ImportError:
        raise ConfigError("the backtests need pandas here: pip install 'warm-container-pool[values]'") from None


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: {directory}: {error.strerror}") from None


def _measure(sandbox: SandboxExecutor, lengths: list[float], *, iterations: int, image: str, parallel: bool) -> Results:
    """Raises PoolError if the pool, or the Docker Engine, cannot run a backtest at all."""
    from pool.report import arms, checks, measure
    from pool.report.decision import Results

    here = arms.InProcess()
    warm = arms.WarmPool(sandbox, here.prices)
    if error := warm.run(1).error:
        raise PoolError(f"the pool cannot run the backtest: {error}")
    container = arms.ColdContainer(image) if image else None
    try:
        _say("checks")
        checked = checks.run(sandbox)
        sweeps = measure.sweeps_for(lengths, here)
        if error := warm.run(sweeps[lengths[-1]]).error:
            raise PoolError(
                f"the pool cannot run a backtest of {lengths[-1]:g} s: {error}; raise limits (wall_s, cpu_s) of the "
                "pool, or give shorter ones with --backtest"
            )
        ways: list[arms.Arm] = [here, warm] if container is None else [here, container, warm]
        cases = measure.compare(ways, sweeps, iterations=iterations, progress=_say)
    finally:
        if container is not None:
            container.close()
    return Results(checked, cases, _in_parallel(warm, sweeps) if parallel else [], _settings(iterations, image))


def _in_parallel(warm: WarmPool, sweeps: dict[float, int]) -> list[Parallel]:
    from pool.report import measure

    cores = os.cpu_count() or 1
    lengths = {each: count for each, count in sweeps.items() if each in PARALLEL_SECONDS} or sweeps
    widths = sorted({1, 2, cores, 2 * cores})
    return measure.side_by_side(warm, lengths, widths=widths, jobs=PARALLEL_JOBS, progress=_say)


def _settings(iterations: int, image: str) -> dict[str, str]:
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    return {
        "command": " ".join(["pool-admin", *sys.argv[1:]]),
        "version": __version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "load at the end (1, 5, 15 minutes)": load,
        "iterations": str(iterations),
        "image of the cold containers": image or "none",
    }


def _write(results: Results, directory: Path) -> bool:
    """Write the report. Returns whether it decides to enable the sandbox."""
    from pool.report import document, plots
    from pool.report.decision import decide

    decision, missing = decide(results), ""
    try:
        names = plots.draw(results, directory)
    except ImportError:
        names, missing = [], "No plots: they need matplotlib, `pip install 'warm-container-pool[report]'`."
        complain(missing)
    text = document.markdown(results, decision, plots=names, no_plots=missing)
    (directory / "report.md").write_text(text, encoding="utf-8")
    measured = {"decision": dataclasses.asdict(decision), **dataclasses.asdict(results)}
    (directory / "report.json").write_text(json.dumps(measured, indent=1), encoding="utf-8")
    typer.echo(text)
    typer.echo(f"{document.summary(decision)}. Written to {directory / 'report.md'}")
    return decision.enable


def _say(what: str) -> None:
    """Show progress in one changing line on a terminal. Elsewhere nothing is shown."""
    if sys.stderr.isatty():
        typer.echo(f"\r\033[K{what}", err=True, nl=False)
