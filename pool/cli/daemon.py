"""`pool-daemon`: read the configuration, run the daemon in the foreground, end with its exit status.

Exit status: 0 ended as asked; 1 the configuration is not valid, or the daemon could not start; 2 wrong usage.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pool.cli.answer import ExitStatus, Version, complain_about
from pool.errors import PoolError
from pool.inherited import end_at_signals, put_right

if TYPE_CHECKING:
    from pool.config import Settings

SYSTEM_CONFIG = Path("/etc/pool/pool.yaml")

app = typer.Typer(name="pool-daemon", pretty_exceptions_enable=False, add_completion=False)


@app.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Exit status: 0 ended as asked; 1 the configuration is not valid (each problem on a line of stderr), or the "
        "daemon could not start; 2 wrong usage."
    ),
)
def daemon(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            envvar="POOL_CONFIG",
            help=f"The configuration; without it {SYSTEM_CONFIG} if that exists, else the defaults.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only check the configuration: print ok, or its problems.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Only print the whole configuration, defaults included, as YAML.")
    ] = False,
    _version: Version = False,
) -> None:
    """Keep pools of warm worker containers and run jobs in them until SIGTERM, SIGINT or SIGHUP."""
    try:
        settings = load_settings(config)
        if print_config:
            _print_yaml(settings)
        elif check:
            typer.echo("ok")
        if check or print_config:
            return
        status = _run(settings)
    except PoolError as error:
        complain_about(error)
        raise typer.Exit(ExitStatus.ERROR) from None
    raise typer.Exit(status)


def load_settings(path: Path | None) -> Settings:
    """The settings of this file; without one, those of the system, else the defaults. Raises ConfigError."""
    from pool.config import load

    if path is not None:
        return load(path)
    if SYSTEM_CONFIG.exists():
        return load(SYSTEM_CONFIG)
    from pool import assets

    return load(assets.example_config())


def _print_yaml(settings: Settings) -> None:
    import yaml

    typer.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), nl=False)


def _run(settings: Settings) -> int:
    from pool.daemon.daemon import Daemon
    from pool.daemon.systemd import setup_logging

    setup_logging(settings.daemon)
    return Daemon(settings).run()


def main() -> None:
    put_right()
    end_at_signals()
    app(prog_name="pool-daemon")


if __name__ == "__main__":
    main()
