"""The commands that need no daemon: `check` screens a file, `config check` checks a configuration, `image build` and
`image unpack` make worker images.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pool.cli.answer import ExitStatus, Json, answering, print_json
from pool.printable import visible
from pool.screen import Policy
from pool.units import format_size

if TYPE_CHECKING:
    from pool.engines.base import ImageFacts
    from pool.model import Finding

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", envvar="POOL_CONFIG", help="The daemon's configuration.")
]


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


def build(
    tag: Annotated[
        str | None, typer.Option("--tag", help="The name of the image; else pool-worker:latest, or :PROFILE.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="IMAGE", help="A base image of your own; else one is found or made."),
    ] = None,
    requirements: Annotated[
        Path | None,
        typer.Option("--requirements", metavar="FILE", exists=True, dir_okay=False, help="The libraries of the jobs."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", metavar="NAME", help="A set of libraries: default (numpy, pandas) or science."),
    ] = None,
    *,
    python: Annotated[
        str | None,
        typer.Option("--python", metavar="VERSION", help="3.11, 3.12 or 3.13; else the version of this interpreter."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even if the image is up to date.")] = False,
    engine: Annotated[
        str,
        typer.Option(
            "--engine", help="docker; oci: written below `image_dir`, needs root; auto: docker if it answers."
        ),
    ] = "auto",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Build the worker image. Progress goes to stderr, with the seconds since the start."""
    if engine not in {"auto", "docker", "oci"}:
        raise typer.BadParameter(f"auto, docker or oci, not {engine!r:.40}", param_hint="--engine")
    started = time.monotonic()

    def progress(line: str) -> None:
        typer.echo(f"[{time.monotonic() - started:6.1f} s] {visible(line)}", err=True)

    with answering(as_json=as_json):
        from pool.images import DEFAULT_TAG, PROFILES, PYTHONS
        from pool.images import profile as requirements_of

        if profile is not None and (profile not in PROFILES or requirements is not None):
            problem = f"{profile!r:.40}; one of: {', '.join(PROFILES)}, and no --requirements beside it"
            raise typer.BadParameter(problem, param_hint="--profile")
        if python is not None and python not in PYTHONS:
            raise typer.BadParameter(f"{python!r:.40}; one of: {', '.join(PYTHONS)}", param_hint="--python")
        if profile is not None:
            requirements = requirements_of(profile)
        name = tag or (DEFAULT_TAG if profile in {None, "default"} else f"pool-worker:{profile}")
        make = _builder(engine, base, config, progress)
        facts = make(name, progress=progress, python=python, requirements=requirements, force=force)
        _show_image(name, facts, seconds=time.monotonic() - started, as_json=as_json)


def _builder(
    engine: str, base: str | None, config: Path | None, progress: Callable[[str], None]
) -> Callable[..., ImageFacts]:
    """The function that builds the image. Raises EngineUnavailableError if this host has no way to build it."""
    from pool.engines.docker import DockerEngine
    from pool.errors import EngineUnavailableError
    from pool.images import build as with_docker

    if engine != "oci":
        docker = DockerEngine()
        try:
            docker.facts()
        except EngineUnavailableError as error:
            # A user who names an Engine wants that one.
            if engine == "docker" or base is not None or os.environ.get("DOCKER_HOST") or not _may_use_runc():
                raise
            progress(error.message)
        else:
            return partial(with_docker, base=base)
        finally:
            docker.close()
    if base is not None:
        raise typer.BadParameter("a base image of your own needs a Docker Engine", param_hint="--base")
    return _direct_builder(config, progress)


def _may_use_runc() -> bool:
    from pool.engines.runc import PROGRAM, is_root

    return is_root() and shutil.which(PROGRAM) is not None


def _direct_builder(config: Path | None, progress: Callable[[str], None]) -> Callable[..., ImageFacts]:
    from pool.cli.daemon import load_settings
    from pool.engines.roots import Roots
    from pool.images import direct

    directory = load_settings(config).daemon.images
    progress(f"building for the engine oci, below {directory}")
    return partial(direct.build, roots=Roots(directory))


def _show_image(tag: str, facts: ImageFacts, *, seconds: float, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "tag": tag,
                "id": facts.id,
                "runner": facts.runner,
                "sources": facts.sources,
                "size_bytes": facts.size_bytes,
                "seconds": round(seconds, 3),
            }
        )
        return
    typer.echo(f"{visible(tag)} is ready after {seconds:.1f} s")
    lines = {"id": facts.id, "size": format_size(facts.size_bytes), "runner": facts.runner, "sources": facts.sources}
    for name, value in lines.items():
        typer.echo(f"  {name:<8} {visible(value)}")


def unpack(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="The archive, as `docker save` writes it."),
    ],
    *,
    tag: Annotated[
        str | None, typer.Option("--tag", help="The name of the image; else the one that the archive has.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Unpack an image archive for the engine oci, below `image_dir` of the configuration. Needs root."""
    started = time.monotonic()
    with answering(as_json=as_json):
        from pool.cli.daemon import load_settings
        from pool.engines.archive import Archive
        from pool.engines.roots import Roots

        archive = Archive(file)
        name = tag or archive.name
        if not name:
            raise typer.BadParameter("the archive has no name for its image; give it one", param_hint="--tag")
        image = Roots(load_settings(config).daemon.images).add(name, archive.image(), archive.unpack)
        _show_image(name, image.facts, seconds=time.monotonic() - started, as_json=as_json)


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
