"""Rules S4xx: strings that a library or the interpreter uses as code or as names.

`Folding` computes constant strings: from constants only, up to FOLDED characters, each node once.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from pool.screen.analysis import Analysis
from pool.screen.imports import Hit
from pool.screen.policy import Policy
from pool.screen.vocabulary import FRAMES, HARMLESS, TELLTALES, is_dunder

_EXPRESSION = re.compile(r"@\s*\w+\s*\.|__")
_ADDRESS = re.compile(r"\s*(?:https?|ftps?|s3|gs|hdfs|file)://", re.IGNORECASE)
_CODE = re.compile(r"[\w\])]\(|__")


def hits(seen: Analysis, policy: Policy, folding: Folding) -> Iterator[Hit]:
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
    """The text, or the constant parts of an f-string, with a placeholder for each value."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal(part) or "x" for part in node.values)
    return _literal(node)


def _literal(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


FOLDED = 256  #: characters; no name that a rule knows is longer

_FIELD = re.compile(r"\{([^{}!:]*)")
_PART = re.compile(r"\.([^.\[\]]+)|\[([^\[\]]*)\]")


class Folding:
    """Remembers each node, so that folding a whole tree is linear."""

    def __init__(self) -> None:
        self._known: dict[int, str | None] = {}

    def text(self, root: ast.expr) -> str | None:
        """The text of the expression, if `Folding` can compute it from constants."""
        waiting = [root]
        while waiting:
            node = waiting[-1]
            if id(node) in self._known:
                waiting.pop()
                continue
            missing = [part for part in _parts(node) if id(part) not in self._known]
            if missing:
                waiting.extend(missing)
                continue
            self._known[id(node)] = self._put_together(waiting.pop())
        return self._known[id(root)]

    def beginning(self, node: ast.expr) -> str:
        """The constant text that the expression's value begins with."""
        while isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod)) and self.text(node) is None:
            node = node.left
        if isinstance(node, ast.JoinedStr) and self.text(node) is None:
            return self.text(node.values[0]) or "" if node.values else ""
        return re.split(r"[%{]", self.text(node) or "")[0]

    def _put_together(self, node: ast.expr) -> str | None:
        text: str | None = None
        match node:
            case ast.Constant(value=str(value)):
                text = value
            case ast.Constant(value=bytes(value)):
                text = value[:FOLDED].decode("latin-1")
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                text = self._joined([left, right], "")
            case ast.JoinedStr(values=values):
                text = self._joined(values, "")
            case ast.FormattedValue(value=value, format_spec=None):
                text = self._known[id(value)]
            case ast.Subscript(value=value, slice=ast.Slice(lower=None, upper=None, step=step)) if _is_minus_one(step):
                text = (self._known[id(value)] or "")[::-1] or None
            case ast.Call(func=ast.Name(id="chr"), args=[ast.Constant(value=int(code))]) if 0 <= code <= 0x10FFFF:
                text = chr(code)
            case ast.Call(func=ast.Attribute(value=glue, attr="join"), args=[ast.List(elts=e) | ast.Tuple(elts=e)]):
                between = self._known[id(glue)]
                text = None if between is None else self._joined(e, between)
            case ast.Call(func=ast.Attribute(value=value, attr="decode" | "lower" | "strip")):
                text = self._known[id(value)]
        return text if text is not None and len(text) <= FOLDED else None

    def _joined(self, nodes: list[ast.expr], between: str) -> str | None:
        if len(nodes) > FOLDED:
            return None
        texts = [self._known[id(node)] for node in nodes]
        return None if None in texts else between.join(text for text in texts if text is not None)


def _parts(node: ast.expr) -> list[ast.expr]:
    """The nodes that have to be folded before this one."""
    match node:
        case ast.BinOp(op=ast.Add()):
            return [node.left, node.right]
        case ast.JoinedStr(values=values):
            return values
        case ast.FormattedValue(value=value) | ast.Subscript(value=value):
            return [value]
        case ast.Call(func=ast.Attribute(value=glue, attr="join"), args=[ast.List(elts=e) | ast.Tuple(elts=e)]):
            return [glue, *e]
        case ast.Call(func=ast.Attribute(value=value, attr="decode" | "lower" | "strip")):
            return [value]
    return []


def _is_minus_one(node: ast.expr | None) -> bool:
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=1)):
            return True
    return False


def reached(template: str) -> Iterator[str]:
    """The attributes and text keys of all fields of a format string, also of fields nested in a format spec."""
    for found in _FIELD.finditer(template):
        for part in _PART.finditer(found[1]):
            yield (part[1] or part[2] or "").strip()
