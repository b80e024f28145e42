"""`pool-admin check`: what the screen has against a file. It asks no daemon, and runs nothing of the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pool.cli.answer import ExitStatus, Json, answering, print_json
from pool.cli.printable import visible
from pool.screen import Mode, Policy

if TYPE_CHECKING:
    from pool.model import Finding


def check(
    file: Annotated[typer.FileBinaryRead, typer.Argument(metavar="FILE", help="Python source; - is stdin.")],
    *,
    screen: Annotated[
        str | None, typer.Option("--screen", metavar="MODE", help="strict or standard; else standard, or the pool's.")
    ] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", metavar="NAME", help="Take the policy of this pool of --config.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="The daemon's configuration.", exists=True, dir_okay=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what the screen would refuse in a Python file, and what to write instead; nothing of it is run.

    Exit status: 0 nothing; 1 findings, or the file is no valid Python; 2 wrong usage.
    """
    code = file.read()
    with answering(as_json=as_json):
        policy = _policy(screen, pool, config)
    _show(getattr(file, "name", "<stdin>"), _look(code, policy), as_json=as_json)


def _policy(screen: str | None, pool: str | None, config: Path | None) -> Policy:
    if screen not in (None, "strict", "standard"):
        raise typer.BadParameter(f"strict or standard, not {screen!r:.40}", param_hint="--screen")
    if config is None and pool is not None:
        raise typer.BadParameter("name the configuration that has the pool, with --config", param_hint="--pool")
    policy = Policy() if config is None else _of_pool(config, pool or "default")
    return policy if screen is None else _with_mode(policy, "strict" if screen == "strict" else "standard")


def _of_pool(config: Path, pool: str) -> Policy:
    from pool.config import load

    pools = load(config).pools
    if pool not in pools:
        raise typer.BadParameter(
            f"there is no pool {pool!r:.40}; the pools are: {', '.join(pools)}", param_hint="--pool"
        )
    return Policy(**pools[pool].screen.model_dump())


def _with_mode(policy: Policy, mode: Mode) -> Policy:
    from dataclasses import replace

    return replace(policy, mode=mode)


def _look(code: bytes, policy: Policy) -> list[Finding] | SyntaxError:
    from pool.screen import check as look

    try:
        return look(code.removeprefix(b"\xef\xbb\xbf"), screen=policy)
    except SyntaxError as error:
        return error


def _show(name: str, found: list[Finding] | SyntaxError, *, as_json: bool) -> None:
    if as_json:
        print_json(_object(found))
    elif isinstance(found, SyntaxError):
        typer.echo(visible(f"{name}:{found.lineno or 1}:{found.offset or 1}: {type(found).__name__} {found.msg}"))
    else:
        for each in found:
            typer.echo(visible(f"{name}:{each.line}:{each.column}: {each.rule} {each.reason}; {each.remedy}"))
    if isinstance(found, SyntaxError) or found:
        raise typer.Exit(ExitStatus.ERROR)


def _object(found: list[Finding] | SyntaxError) -> dict[str, object]:
    if isinstance(found, SyntaxError):
        wrong = {"type": type(found).__name__, "message": found.msg, "line": found.lineno, "column": found.offset}
        return {"findings": [], "syntax_error": wrong}
    from dataclasses import asdict

    return {"findings": [asdict(each) for each in found], "syntax_error": None}
