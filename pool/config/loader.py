"""YAML text -> Settings, or one ConfigError that lists every problem as `file:line: key: problem; allowed: what`.

    text ──▶ parse: a tree of mappings, lists and text, ──▶ settings.py: each key reads its text ──▶ Settings
             the line of each key, ${VAR:default}           by its own type
                 └── problems ────────────────────────────────┴──▶ ConfigError

Scalars stay text here, so YAML's rules about types do not apply: `screen: off` is the word `off`, and
`submit_mode: 0660` is the mode 0660. References are filled in after parsing, so a variable can change a value but not
the structure:

    ${POOL_RUN_DIR:/run/pool}   the variable, or the default if it is not set; set but empty counts as set
    ${POOL_IMAGE}               the variable; an error if it is not set
    a-${X:b}-c                  a reference inside other text
    $${X}                       the text ${X}
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pool.config.fields import Plain, show
from pool.config.settings import Settings
from pool.errors import ConfigError

Steps = tuple[str | int, ...]  #: the path to a value: ("pools", "default", "preload", "modules", 1)
Tree = str | tuple[object, ...] | dict[str, object]

MAX_BYTES = 1 << 20  #: a configuration of 64 pools with every key has about 100 kB
MAX_PROBLEMS = 100  #: more problems than this usually mean that it is the wrong file
MAX_DEPTH = 16  #: the settings are nested 5 deep

_YAML_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {"!", *(_YAML_TAG + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))}
_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<inside>[^}]*)(?P<end>\}?)")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<default>.*))?", re.DOTALL)


def load(path: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from a file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refusal(str(path), [Problem(0, (), f"cannot be read: {error.strerror or error}")]) from None
    if len(content) > MAX_BYTES:
        raise _refusal(str(path), [Problem(0, (), f"too long; allowed: up to {MAX_BYTES} bytes")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text (byte {error.start}); save the file as UTF-8"
        raise _refusal(str(path), [Problem(0, (), problem)]) from None
    return loads(text, source=str(path), environ=environ)


def loads(text: str, *, source: str = "configuration", environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from text. `source` names it in the problems, `environ` fills in ${VAR}. Raises ConfigError."""
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


# ---- text -> tree ----


@dataclass(frozen=True, slots=True)
class Problem:
    """`line` counts from 1; 0 means the file as a whole."""

    line: int
    path: Steps
    text: str

    def render(self, source: str) -> str:
        place = f"{source}:{self.line}" if self.line else source
        return f"{place}: {_key(self.path)}: {self.text}" if self.path else f"{place}: {self.text}"


@dataclass(slots=True)
class Document:
    """The tree without the values that have a problem; None if the text cannot be read at all."""

    tree: dict[str, object] | None = None
    lines: dict[Steps, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, path: Steps) -> int:
        """The line of this key, or of the nearest key above it that is in the text."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


class _UnreadableError(Exception):
    """The text cannot be read at all. This is then the only problem that is reported."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.problem = Problem(line, (), text)


def parse(text: str, environ: Mapping[str, str]) -> Document:
    """Parse the text. Never raises for bad text: then the tree is None and `problems` says why."""
    document = Document()
    try:
        _Builder(document, environ, events=yaml.parse(text, Loader=yaml.CSafeLoader)).build()
    except _UnreadableError as error:
        return Document(problems=[error.problem])
    except yaml.YAMLError as error:
        return Document(problems=[_not_yaml(error)])
    except UnicodeEncodeError as error:  # libyaml reads bytes
        line = text.count("\n", 0, error.start) + 1
        return Document(problems=[Problem(line, (), "not text: a lone surrogate; save the file as UTF-8")])
    return document


def _not_yaml(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    parts = [str(part) for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part]
    text = " ".join(parts) or " ".join(str(error).split())
    if "cannot start any token" in text:
        text += "; indent with spaces and not with tabs, and put text that begins with @, ` or % in quotes"
    return Problem(mark.line + 1 if mark else 0, (), f"not YAML: {text}")


class _Builder:
    """Builds the tree from the parser's events, because events carry line numbers and text as it was written."""

    def __init__(self, document: Document, environ: Mapping[str, str], *, events: Iterator[yaml.Event]) -> None:
        self._document = document
        self._environ = environ
        self._events = events

    def build(self) -> None:
        starts = (event for event in self._events if isinstance(event, yaml.DocumentStartEvent))
        if next(starts, None) is None:
            problem = "the file is empty; write {} for the defaults; pool-daemon --print-config shows every key"
            raise _UnreadableError(0, problem)
        root = next(self._events)
        if not isinstance(root, yaml.MappingStartEvent):
            problem = f"the top level must be a mapping with the keys {', '.join(_keys_at(()))}"
            raise _UnreadableError(_line(root), problem)
        self._document.tree = self._mapping(())
        if (second := next(starts, None)) is not None:
            raise _UnreadableError(_line(second), "a second document begins here; keep one document in the file")

    def _wrong(self, event: yaml.Event, path: Steps, text: str) -> None:
        self._document.problems.append(Problem(_line(event), path, text))

    def _value(self, event: yaml.Event, path: Steps) -> Tree | None:
        """The value that begins with this event; None if it has a problem, which is then noted."""
        if len(path) > MAX_DEPTH:
            problem = f"nested more than {MAX_DEPTH} deep; config/pool.yaml shows the form"
            raise _UnreadableError(_line(event), problem)
        if isinstance(event, yaml.AliasEvent):
            self._wrong(event, path, f"the alias *{event.anchor:.40} is not allowed; write the value out")
            return None
        value = self._collection_or_text(event, path)
        tag: str | None = getattr(event, "tag", None)
        if tag is not None and tag not in _PLAIN_TAGS:
            name = tag.removeprefix(_YAML_TAG)
            self._wrong(event, path, f"the tag {name!r:.60} is not allowed; write a plain value")
            return None
        return value

    def _collection_or_text(self, event: yaml.Event, path: Steps) -> Tree | None:
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        assert isinstance(event, yaml.ScalarEvent)
        try:
            text = _REFERENCE.sub(self._filled, event.value)
        except ValueError as error:
            self._wrong(event, path, str(error))
            return None
        return Plain(text) if not event.style or _is_one_reference(event.value) else text

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _mapping(self, path: Steps) -> dict[str, object]:
        built: dict[str, object] = {}
        for name in self._until(yaml.MappingEndEvent):
            if not isinstance(name, yaml.ScalarEvent):
                self._wrong(name, path, "a key must be a single word, not a list, a mapping or an alias")
                self._skip(name)
                self._skip(next(self._events))
                continue
            here = (*path, name.value)
            if first := self._document.lines.get(here):
                self._wrong(name, here, f"duplicate key, first given in line {first}; keep one")
                self._skip(next(self._events))
                continue
            self._document.lines[here] = _line(name)
            value = self._value(next(self._events), here)
            if value is not None:
                built[name.value] = value
        return built

    def _skip(self, event: yaml.Event) -> None:
        """Pass over the whole value that begins with this event."""
        depth = 0
        while True:
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if not depth:
                return
            event = next(self._events)

    def _sequence(self, path: Steps) -> tuple[object, ...]:
        built = []
        for index, item in enumerate(self._until(yaml.SequenceEndEvent)):
            self._document.lines[*path, index] = _line(item)
            built.append(self._value(item, (*path, index)))
        return tuple(item for item in built if item is not None)

    def _filled(self, match: re.Match[str]) -> str:
        """The text of one reference. Raises ValueError that says what is wrong and what to write."""
        if match["inside"] is None:
            return "${"
        inside = _INSIDE.fullmatch(match["inside"])
        if inside is None or not match["end"] or "${" in match["inside"]:
            raise ValueError(
                f"{match[0]!r:.60} is not a reference; write ${{VARIABLE}} or ${{VARIABLE:default}}, not nested, "
                "or $${ for a literal ${"
            )
        value = self._environ.get(inside["name"], inside["default"])
        if value is None:
            raise ValueError(
                f"the environment variable {inside['name']} is not set; "
                f"set it, or give a default: ${{{inside['name']}:default}}"
            )
        return value


def _is_one_reference(text: str) -> bool:
    """Whether it is one whole reference. `"${POOL_MIN:2}"` has its quotes because of the braces, so it is not text."""
    match = _REFERENCE.fullmatch(text)
    return match is not None and match["inside"] is not None


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


# ---- problems ----


def _refusal(source: str, problems: list[Problem]) -> ConfigError:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    in_order = sorted(problems, key=lambda problem: problem.line)
    lines = tuple(problem.render(source) for problem in in_order[:MAX_PROBLEMS])
    return ConfigError(f"{source} has {count}; correct the configuration and start again", problems=lines)


def _problem(error: ErrorDetails, document: Document) -> Problem:
    path = tuple(step for step in error["loc"] if step != "[key]")
    return Problem(document.line_of(path), path, _sentence(error, path))


def _sentence(error: ErrorDetails, path: Steps) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return _unknown(path)
        case "literal_error":
            allowed = context["expected"].replace("'", "")
        case "model_type":
            allowed = f"a mapping with the keys {', '.join(_keys_at(path))}{_as_mapping(error['input'], path)}"
        case "dict_type":
            allowed = "a mapping of names to values"
        case "tuple_type":
            given = error["input"]
            words = ", ".join(given.replace(",", " ").split()) if isinstance(given, Plain) else ""
            allowed = f"a list, such as [{words:.60}]" if words else "a list"
        case "too_long" | "too_short":
            return f"{len(error['input'])} entries; allowed: {context.get('max_length', '1 or more')}"
        case _:  # the sentence of `Allowed`
            return error["msg"]
    return f"got {show(error['input'])}; allowed: {allowed}"


def _unknown(path: Steps) -> str:
    """`path` ends with the unknown key."""
    name, known = str(path[-1]), _keys_at(path[:-1])
    homes = [f"below {_key(home)}" if home else "at the top level" for home in _sections() if name in _keys_at(home)]
    close = get_close_matches(name, known, n=1)
    hint = f"it belongs {' or '.join(homes)}; " if homes else f"did you mean {close[0]}? " if close else ""
    return f"unknown key; {hint}allowed: {', '.join(known)}"


def _as_mapping(given: object, path: Steps) -> str:
    """How to write a list in the place of a section, if one key of the section takes a list."""
    lists = [name for name, setting in _section_at(path).items() if get_origin(setting.annotation) is tuple]
    if len(lists) != 1 or not isinstance(given, tuple) or not all(isinstance(each, Plain) for each in given):
        return ""
    return f", such as {{{lists[0]}: [{', '.join(map(show, given)):.60}]}}"


def _sections(path: Steps = ()) -> Iterator[Steps]:
    """All sections of the settings, with NAME as the pool: (), ("daemon",), ("pools", "NAME"), ..."""
    yield path
    for name, setting in _section_at(path).items():
        below = (*path, name, "NAME") if get_origin(setting.annotation) is dict else (*path, name)
        if _section_at(below):
            yield from _sections(below)


def _keys_at(path: Steps) -> list[str]:
    return list(_section_at(path))


def _section_at(path: Steps) -> dict[str, FieldInfo]:
    """The keys that the settings have at this place."""
    place: object = Settings
    for step in path:
        if isinstance(place, type) and issubclass(place, BaseModel):
            place = place.model_fields[str(step)].annotation
        elif get_origin(place) is dict:
            place = get_args(place)[1]
    return place.model_fields if isinstance(place, type) and issubclass(place, BaseModel) else {}


def _key(path: Steps) -> str:
    """The path as text: pools.default.preload.modules[1]"""
    steps = [f"[{step}]" if isinstance(step, int) else f".{_printable(step)}" for step in path]
    return "".join(steps).removeprefix(".")


def _printable(step: str) -> str:
    return f"{step:.60}" if step.isprintable() else f"{step!r:.60}"
