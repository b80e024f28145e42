"""File or text -> Settings, or one ConfigError with every problem as a line `file:line: key: wrong; allowed: what`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pool.config.allowed import show
from pool.config.document import Document, Problem, parse
from pool.config.settings import Settings
from pool.errors import ConfigError

#: A configuration of 64 pools with every key is about 100 kB.
MAX_BYTES = 1 << 20

#: More than this is no list to work through, but the wrong file.
MAX_PROBLEMS = 100


def load(path: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in a file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refusal(str(path), [Problem(0, (), f"cannot be read: {error.strerror or error}")]) from None
    if len(content) > MAX_BYTES:
        raise _too_long(str(path))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = f"not text in UTF-8, at byte {error.start}; save it as UTF-8"
        raise _refusal(str(path), [Problem(0, (), wrong)]) from None
    return loads(text, source=str(path), environ=environ)


def loads(text: str, *, source: str = "configuration", environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in a text; `source` names it in the problems, `environ` fills in ${VAR}. Raises ConfigError."""
    if len(text) > MAX_BYTES:
        raise _too_long(source)
    document = parse(text, os.environ if environ is None else environ)
    if document.tree is None:
        raise _refusal(source, document.problems)
    found: list[Problem] = []
    try:
        settings = Settings.model_validate(document.tree)
    except ValidationError as error:
        found = [_problem(each, document) for each in error.errors(include_url=False)[:MAX_PROBLEMS]]
    if document.problems or found:
        raise _refusal(source, document.problems + found)
    return settings


def _too_long(source: str) -> ConfigError:
    return _refusal(source, [Problem(0, (), f"too long; allowed: up to {MAX_BYTES} bytes")])


def _refusal(source: str, problems: list[Problem]) -> ConfigError:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    in_order = sorted(problems, key=lambda problem: problem.line)
    lines = tuple(problem.render(source) for problem in in_order[:MAX_PROBLEMS])
    return ConfigError(f"{source} has {count}; correct the configuration and start again", problems=lines)


def _problem(error: ErrorDetails, document: Document) -> Problem:
    path = tuple(step for step in error["loc"] if step != "[key]")
    return Problem(document.line_of(path), path, _sentence(error, path))


def _sentence(error: ErrorDetails, path: tuple[str | int, ...]) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return _unknown(str(path[-1]), _keys_at(path[:-1]))
        case "literal_error":
            allowed = context["expected"].replace("'", "")
        case "model_type":
            allowed = f"a mapping with the keys {', '.join(_keys_at(path))}"
        case "dict_type":
            allowed = "a mapping of names to values"
        case "tuple_type":
            allowed = "a list"
        case "too_long" | "too_short":
            return f"{len(error['input'])} entries; allowed: {context.get('max_length', '1 or more')}"
        case _:  # the sentence of `Allowed`
            return error["msg"]
    return f"got {show(error['input'])}; allowed: {allowed}"


def _unknown(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown key; {hint}allowed: {', '.join(known)}"


def _keys_at(path: tuple[str | int, ...]) -> list[str]:
    """The keys that the settings know at this place."""
    place: object = Settings
    for step in path:
        if isinstance(place, type) and issubclass(place, BaseModel):
            place = place.model_fields[str(step)].annotation
        elif get_origin(place) is dict:
            place = get_args(place)[1]
    return list(place.model_fields) if isinstance(place, type) and issubclass(place, BaseModel) else []
