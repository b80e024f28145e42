"""`pool-admin`: the shared options and the list of commands.

Libraries that take long to import (rich, the Docker SDK, the client) are imported by the command that needs them, so
that a script may call `pool-admin status --json` often.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from pool.cli import advise, check, doctor, image, inspect, mine, operate, report, run
from pool.cli.answer import Version, resolve
from pool.inherited import put_right

EXIT_STATUS = (
    "Exit status: 0 ok; 1 error (for run: the job did not end ok); 2 wrong usage; 3 the daemon is unreachable; "
    "4 degraded (status: fewer ready workers than a pool's min, a pool that stopped starting workers after failures, "
    "or a daemon that is not running; doctor: isolation or the host has a problem); 130 interrupted."
)

app = typer.Typer(
    name="pool-admin",
    help="Inspect and operate a running pool-daemon.",
    epilog=EXIT_STATUS,
    no_args_is_help=True,
    rich_markup_mode="markdown",  # the other mode keeps the line ends of docstrings and breaks lines again between them
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="The daemon's configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config", rich_help_panel="Image and configuration")
image_app = typer.Typer(help="The worker image.", no_args_is_help=True)
app.add_typer(image_app, name="image", rich_help_panel="Image and configuration")

for look_command in (
    inspect.status,
    inspect.workers,
    inspect.jobs,
    inspect.job,
    inspect.poison,
    advise.advise,
    mine.mine,
    doctor.doctor,
):
    app.command(rich_help_panel="Look")(look_command)
for run_command in (run.run, check.check, report.report):
    app.command(rich_help_panel="Run")(run_command)
for order in (operate.cancel, operate.drain, operate.resume, operate.recycle, operate.resize, operate.pardon):
    app.command(rich_help_panel="Operate")(order)
image_app.command("build")(image.build)
image_app.command("unpack")(image.unpack)
config_app.command("check")(check.config_check)


@config_app.callback()
def _config() -> None:
    """Make `check` a command of its own: typer would merge a single one into `config`."""


@app.callback()
def shared(
    context: typer.Context,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", metavar="ENDPOINT", help="The admin socket. (environment: POOL_ADMIN_ENDPOINT)"),
    ] = None,
    run_dir: Annotated[
        str | None,
        typer.Option("--run-dir", metavar="DIR", help="The daemon's run directory. (environment: POOL_RUN_DIR)"),
    ] = None,
    _version: Version = False,
) -> None:
    context.obj = resolve(endpoint, run_dir)


def main() -> None:
    put_right()
    for stream in (sys.stdout, sys.stderr):
        # Output and names may have characters that the terminal's encoding lacks; the command must not fail on them.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="pool-admin")


if __name__ == "__main__":
    main()
