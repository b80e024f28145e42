"""`pool-admin check` screens a Python file; `pool-admin config check` checks a configuration. No daemon is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pool.cli.answer import ExitStatus, Json, answering, print_json
from pool.printable import visible
from pool.screen import Policy

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
    """Print what the screen refuses in a Python file, and what to write instead. The file is not run.

    Exit status: 0 no findings; 1 findings, or the file is not valid Python; 2 wrong usage.
    """
    code = file.read()
    with answering(as_json=as_json):
        policy = _policy(screen, pool, config)
    _show_findings(getattr(file, "name", "<stdin>"), _look(code, policy), as_json=as_json)


def _policy(screen: str | None, pool: str | None, config: Path | None) -> Policy:
    if screen not in (None, "strict", "standard"):
        raise typer.BadParameter(f"strict or standard, not {screen!r:.40}", param_hint="--screen")
    if config is None and pool is not None:
        raise typer.BadParameter("name the configuration that has the pool, with --config", param_hint="--pool")
    policy = Policy() if config is None else _of_pool(config, pool or "default")
    return policy if screen is None else policy._replace(mode="strict" if screen == "strict" else "standard")


def _of_pool(config: Path, pool: str) -> Policy:
    from pool.config import load

    pools = load(config).pools
    if pool not in pools:
        raise typer.BadParameter(
            f"there is no pool {pool!r:.40}; the pools are: {', '.join(pools)}", param_hint="--pool"
        )
    return Policy(**pools[pool].screen.model_dump())


def _look(code: bytes, policy: Policy) -> list[Finding] | SyntaxError:
    from pool.screen import check as look

    try:
        return look(code.removeprefix(b"\xef\xbb\xbf"), screen=policy)
    except SyntaxError as error:
        return error


def _show_findings(name: str, found: list[Finding] | SyntaxError, *, as_json: bool) -> None:
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
    return {"findings": [each._asdict() for each in found], "syntax_error": None}


def config_check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The configuration, as for pool-daemon --config.")],
    as_json: Json = False,
) -> None:
    """Check a configuration: print its pools, or each problem with its line, key and what is allowed.

    Exit status: 0 valid; 1 not valid.
    """
    with answering(as_json=as_json):
        from pool.config import load

        pools = list(load(file).pools)
    if as_json:
        print_json({"file": str(file), "pools": pools})
    else:
        typer.echo(visible(f"{file} is valid; pools: {', '.join(pools)}"))
