"""The options of a job, as they are typed on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from pool.printable import visible

Entry = Annotated[str | None, typer.Option("--entry", metavar="NAME", help="The function to call.")]
Arg = Annotated[
    list[str] | None, typer.Option("--arg", metavar="JSON", help="An argument of the function; may be repeated.")
]
Kwarg = Annotated[
    list[str] | None,
    typer.Option("--kwarg", metavar="NAME=JSON", help="A keyword argument of the function; may be repeated."),
]
Wall = Annotated[float | None, typer.Option("--wall", metavar="SECONDS", help="Wall-clock limit.")]
Memory = Annotated[str | None, typer.Option("--memory", metavar="SIZE", help="Memory limit, such as 256m.")]
Stdin = Annotated[
    typer.FileBinaryRead | None, typer.Option("--stdin", metavar="FILE", help="What the job reads from stdin.")
]
GivenFile = Annotated[
    list[str] | None,
    typer.Option("--file", metavar="[NAME=]PATH", help="A file for the job's working directory; may be repeated."),
]
Argv = Annotated[list[str] | None, typer.Option("--argv", metavar="TEXT", help="An item of sys.argv; may be repeated.")]
Env = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME=VALUE", help="A variable that the pool allows; may be repeated."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="The seed of random and numpy.random.")]
Retries = Annotated[int, typer.Option("--retries", help="Further attempts if its worker or the daemon fails; 0 to 10.")]
Denials = Annotated[
    bool, typer.Option("--explain-denials", help="Print on stderr what the sandbox denies the job, and at which line.")
]
Trace = Annotated[
    bool,
    typer.Option(
        "--trace", help="Print the microseconds of each step on stderr, from the client to the code and back."
    ),
]


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
            raise typer.BadParameter(visible(f"{path}: {error.strerror}"), param_hint="--out") from None
