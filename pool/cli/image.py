"""`pool-admin image build`: the one command that needs a Docker Engine and no daemon."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pool.cli.answer import Json, answering, print_json
from pool.cli.printable import visible
from pool.units import format_size

if TYPE_CHECKING:
    from pool.engines.base import ImageFacts


def build(
    tag: Annotated[str, typer.Option("--tag", help="The name of the image.")] = "pool-worker:latest",
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="IMAGE", help="A base image of your own; else one is found or made."),
    ] = None,
    requirements: Annotated[
        Path | None,
        typer.Option("--requirements", metavar="FILE", exists=True, dir_okay=False, help="The libraries of the jobs."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even if the image is up to date.")] = False,
    as_json: Json = False,
) -> None:
    """Build the worker image. Progress goes to stderr, with the seconds since the start."""
    started = time.monotonic()

    def progress(line: str) -> None:
        typer.echo(f"[{time.monotonic() - started:6.1f} s] {visible(line)}", err=True)

    with answering(as_json=as_json):
        from pool.images import build as build_image

        facts = build_image(tag, progress=progress, base=base, requirements=requirements, force=force)
        _show(tag, facts, seconds=time.monotonic() - started, as_json=as_json)


def _show(tag: str, facts: ImageFacts, *, seconds: float, as_json: bool) -> None:
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
