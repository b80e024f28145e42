"""The options of a job, as they are typed on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import typer


def json_value(option: str, text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r:.80} is not JSON ({error}); text is written with quotes, such as '\"abc\"'", param_hint=option
        ) from None


def named_json(texts: Iterable[str]) -> dict[str, object]:
    """The keyword arguments of `--kwarg NAME=JSON`."""
    found: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"write NAME=JSON, got {text!r:.80}", param_hint="--kwarg")
        found[name] = json_value("--kwarg", value)
    return found


def environment(texts: Iterable[str]) -> dict[str, str]:
    """The variables of `--env NAME=VALUE`."""
    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, equals, _ in pairs if not equals or not name]:
        raise typer.BadParameter(f"write NAME=VALUE, got {wrong[0]!r:.80}", param_hint="--env")
    return {name: value for name, _, value in pairs}


def given_files(texts: Iterable[str]) -> dict[str, bytes]:
    """The files of `--file PATH` or `--file NAME=PATH`: content by the name that the job sees."""
    found: dict[str, bytes] = {}
    for text in texts:
        name, _, path = text.rpartition("=") if "=" in text and not Path(text).exists() else ("", "", text)
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="--file") from None
        if (name or Path(path).name) in found:
            raise typer.BadParameter(
                f"{name or Path(path).name}: two files of this name; write NAME=PATH", param_hint="--file"
            )
        found[name or Path(path).name] = content
    return found


def write_files(directory: Path, files: dict[str, bytes]) -> None:
    """Write a job's output files below the directory. The client has checked that no name leads out of it."""
    for name, content in files.items():
        path = directory / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="--out") from None
