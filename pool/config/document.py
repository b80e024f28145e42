"""Text -> a tree of plain values with the line of every key, and what is wrong with it as YAML.

The parser is libyaml with the safe tags. What a configuration has no use for is refused before any object is built:
aliases (a few lines of them can stand for gigabytes), deep nesting, tags, duplicate keys, and the numbers that YAML 1.1
reads in ways nobody expects (0660 is 432, 1:30 is 90).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from pool.config.interpolate import interpolate, is_one_reference

Path = tuple[str | int, ...]

#: The settings nest 4 deep.
MAX_DEPTH = 16

_TAG = "tag:yaml.org,2002:"
_TYPED = frozenset({_TAG + "int", _TAG + "float", _TAG + "bool", _TAG + "null"})
_CORE = _TYPED | {_TAG + name for name in ("str", "map", "seq", "timestamp", "merge", "value")}
_MISREAD = re.compile(r"[-+]?(0[0-9_]+|.*:.*)")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; `line` counts from 1, 0 is the file as a whole."""

    line: int
    path: Path
    text: str

    def render(self, source: str) -> str:
        place = f"{source}:{self.line}" if self.line else source
        return f"{place}: {key(self.path)}: {self.text}" if self.path else f"{place}: {self.text}"


@dataclass(frozen=True, slots=True)
class Interpolated:
    """A scalar that was wholly one ${...} and reads as a number or a truth value; a setting of text takes `text`."""

    text: str
    value: object


@dataclass(slots=True)
class Document:
    """The tree, without the places that have a problem already."""

    tree: object = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, path: Path) -> int:
        """The line of this key or of the nearest one above that the text has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def key(path: Path) -> str:
    """pools.default.preload.modules[1]"""
    steps = [f"[{step}]" if isinstance(step, int) else f".{_printable(step)}" for step in path]
    return "".join(steps).removeprefix(".")


def _printable(step: str) -> str:
    return f"{step:.60}" if step.isprintable() else f"{step!r:.60}"


def parse(text: str, environ: Mapping[str, str]) -> Document:
    """Never raises for bad text; then the tree is None and `problems` says why."""
    document = Document()
    try:
        _refuse_bombs(text, document)
        if not document.problems:
            _Builder(text, environ, document=document).build()
    except yaml.YAMLError as error:
        document.problems.append(_not_yaml(error))
    except UnicodeEncodeError as error:  # libyaml reads bytes
        line = text.count("\n", 0, error.start) + 1
        document.problems.append(Problem(line, (), "not text: a lone surrogate; save the file as UTF-8"))
    return document


def _refuse_bombs(text: str, document: Document) -> None:
    """One pass over the events, which builds nothing and does not recurse, before anything that does."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            wrong = f"the alias *{event.anchor:.40} is not allowed; write the value out"
        elif depth > MAX_DEPTH:
            wrong = f"nested more than {MAX_DEPTH} deep; config/pool.yaml shows the form"
        else:
            continue
        document.problems.append(Problem(_line(event), (), wrong))
        return


def _line(at: yaml.Event | yaml.Node) -> int:
    return at.start_mark.line + 1 if at.start_mark else 0


def _not_yaml(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    said = [str(part) for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part]
    text = " ".join(said) or " ".join(str(error).split())
    return Problem(mark.line + 1 if mark else 0, (), f"not YAML: {text}")


class _Builder:
    """Walks the nodes of one document, which are as many as the text is long: aliases are out by now."""

    def __init__(self, text: str, environ: Mapping[str, str], *, document: Document) -> None:
        self._loader = yaml.CSafeLoader(text)
        self._environ = environ
        self._document = document

    def build(self) -> None:
        root = self._loader.get_single_node()
        if root is None:
            self._document.problems.append(Problem(0, (), "the file is empty; start from config/pool.yaml"))
        elif not isinstance(root, yaml.MappingNode):
            wrong = "the top level must be a mapping with the keys sandbox, daemon and pools"
            self._document.problems.append(Problem(_line(root), (), wrong))
        else:
            self._document.tree = self._mapping(root, ())

    def _wrong(self, node: yaml.Node, path: Path, text: str) -> None:
        self._document.problems.append(Problem(_line(node), path, text))

    def _put(self, into: dict[str, object] | dict[int, object], node: yaml.Node, path: Path) -> None:
        """Build `node` under the last step of its path; what is wrong is reported once and left out."""
        try:
            into[path[-1]] = self._value(node, path)  # type: ignore[index]
        except ValueError as error:
            self._wrong(node, path, str(error))

    def _value(self, node: yaml.Node, path: Path) -> object:
        if node.tag not in _CORE:
            raise ValueError(f"the tag {node.tag.removeprefix(_TAG)!r:.60} is not allowed; write a plain value")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, path)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        raise ValueError("write a plain value")

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        built: dict[str, object] = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                self._wrong(name, path, "a key must be a single word, not a list or a mapping")
                continue
            here = (*path, name.value)
            line = _line(name)
            if here in self._document.lines:
                self._wrong(name, here, f"duplicate key, first given in line {self._document.lines[here]}; keep one")
                continue
            self._document.lines[here] = line
            self._put(built, value, here)
        return built

    def _sequence(self, node: yaml.SequenceNode, path: Path) -> tuple[object, ...]:
        built: dict[int, object] = {}
        for index, item in enumerate(node.value):
            self._document.lines[*path, index] = _line(item)
            self._put(built, item, (*path, index))
        return tuple(built.values())

    def _scalar(self, node: yaml.ScalarNode) -> object:
        if "${" not in node.value:
            return self._typed(node)
        text = interpolate(node.value, self._environ)
        if not is_one_reference(node.value):
            return text
        tag = self._loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        if tag not in _TYPED or _MISREAD.fullmatch(text):
            return text
        value = self._typed(yaml.ScalarNode(tag, text))
        return None if value is None else Interpolated(text, value)

    def _typed(self, node: yaml.ScalarNode) -> object:
        if node.tag not in _TYPED:
            return node.value
        if _MISREAD.fullmatch(node.value):
            raise ValueError(
                f"YAML reads {node.value:.40} as another number; write text in quotes, and a number without a "
                "leading 0 or a colon"
            )
        try:
            return self._loader.construct_object(node)
        except ValueError:
            raise ValueError(f"{node.value[:40]}... is not a number that can be read; write a shorter one") from None
