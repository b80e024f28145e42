"""Rules S4xx: texts that a library or the interpreter will take as code or as names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from pool.screen.imports import Hit
from pool.screen.policy import Policy
from pool.screen.survey import Survey
from pool.screen.texts import Folding, reached
from pool.screen.words import FRAMES, HARMLESS, TELLTALES, is_dunder

_EXPRESSION = re.compile(r"@\s*\w+\s*\.|__")
_ADDRESS = re.compile(r"\s*(?:https?|ftps?|s3|gs|hdfs|file)://", re.IGNORECASE)
_CODE = re.compile(r"[\w\])]\(|__")


def hits(seen: Survey, policy: Policy, folding: Folding) -> Iterator[Hit]:
    allowed = frozenset(policy.allow_names)
    for node in seen.texts:
        yield from _text(node, allowed)
    for joined in seen.joins:
        text = folding.text(joined)
        if text is not None and text.strip() in TELLTALES - allowed:
            yield "S402", joined, text
    for call, _ in seen.calls:
        yield from _call(call, folding, allowed)
    for annotation in seen.annotations:
        text = _literal(annotation)
        if _CODE.search(text):
            yield "S404", annotation, repr(text[:80])


def _text(node: ast.Constant, allowed: frozenset[str]) -> Iterator[Hit]:
    value = node.value
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    assert isinstance(text, str)
    if text.strip() in TELLTALES and text.strip() not in allowed:
        yield "S402", node, text
    elif "{" in text:
        for name in reached(text):
            if name not in allowed and (name in FRAMES or (is_dunder(name) and name not in HARMLESS)):
                yield "S401", node, name
                return


def _call(call: ast.Call, folding: Folding, allowed: frozenset[str]) -> Iterator[Hit]:
    function = call.func
    if not isinstance(function, ast.Attribute):
        return
    text = folding.text(call)
    if text is not None and text.strip() in TELLTALES - allowed:
        yield "S402", call, text
    first = _constant_parts(call.args[0]) if call.args else ""
    if function.attr in ("query", "eval") and _EXPRESSION.search(first):
        yield "S403", call, repr(first[:80])
    elif function.attr.startswith("read_") and _ADDRESS.match(first):
        yield "S405", call, repr(first[:80])


def _constant_parts(node: ast.expr) -> str:
    """The text, or what is constant of an f-string, with a name for each value in it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal(part) or "x" for part in node.values)
    return _literal(node)


def _literal(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
