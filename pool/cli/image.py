"""`pool-admin image build` and `pool-admin image unpack`: make worker images. No daemon is needed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pool.cli.answer import Json, answering, print_json
from pool.printable import visible
from pool.units import format_size

if TYPE_CHECKING:
    from pool.engines.base import ImageFacts

Tag = Annotated[str | None, typer.Option("--tag", help="The name of the image; else pool-worker:latest, or :PROFILE.")]
Base = Annotated[
    str | None, typer.Option("--base", metavar="IMAGE", help="A base image of your own; else one is found or made.")
]
Requirements = Annotated[
    Path | None,
    typer.Option("--requirements", metavar="FILE", exists=True, dir_okay=False, help="The libraries of the jobs."),
]
Profile = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="A set of libraries: default (numpy, pandas) or science."),
]
Python = Annotated[
    str | None,
    typer.Option("--python", metavar="VERSION", help="3.11, 3.12 or 3.13; else the version of this interpreter."),
]
Force = Annotated[bool, typer.Option("--force", help="Build even if the image is up to date.")]
Engine = Annotated[
    str,
    typer.Option("--engine", help="docker; oci: written below `image_dir`, needs root; auto: docker if it answers."),
]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", envvar="POOL_CONFIG", help="The daemon's configuration.")
]


def build(
    tag: Tag = None,
    base: Base = None,
    requirements: Requirements = None,
    profile: Profile = None,
    *,
    python: Python = None,
    force: Force = False,
    engine: Engine = "auto",
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
        name = tag or _default_tag(profile)
        libraries = _requirements(profile, requirements)
        _refuse_unknown(python)
        make = _builder(engine, base, config, progress)
        facts = make(name, progress=progress, python=python, requirements=libraries, force=force)
        _show_image(name, facts, seconds=time.monotonic() - started, as_json=as_json)


def _default_tag(profile: str | None) -> str:
    from pool.images import DEFAULT_TAG

    return DEFAULT_TAG if profile in {None, "default"} else f"pool-worker:{profile}"


def _requirements(profile: str | None, requirements: Path | None) -> Path | None:
    """The file that lists the image's libraries; None for the default ones."""
    from pool.images import PROFILES
    from pool.images import profile as of_profile

    if profile is None:
        return requirements
    if profile not in PROFILES or requirements is not None:
        problem = f"{profile!r:.40}; one of: {', '.join(PROFILES)}, and no --requirements beside it"
        raise typer.BadParameter(problem, param_hint="--profile")
    return of_profile(profile)


def _refuse_unknown(python: str | None) -> None:
    from pool.images import PYTHONS

    if python is not None and python not in PYTHONS:
        raise typer.BadParameter(f"{python!r:.40}; one of: {', '.join(PYTHONS)}", param_hint="--python")


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
