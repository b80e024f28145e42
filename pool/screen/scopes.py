"""Which names are the program's own, by Python's rules of scopes:

- A name that a function binds (a parameter, or an assignment anywhere in it) is never the builtin of that name.
- A name of the module is the builtin until the statement that binds it has run, so the position counts.
- A name that a class body binds may still resolve to the builtin, and does not count.
"""

from __future__ import annotations

import ast
from typing import Literal, NamedTuple

Place = tuple[int, int]


class Scope:
    __slots__ = ("bound", "elsewhere", "kind", "parameters", "parent")

    def __init__(
        self,
        kind: Literal["module", "class", "function", "comprehension"],
        parent: Scope | None = None,
        *,
        parameters: frozenset[str] = frozenset(),
    ) -> None:
        self.kind = kind
        self.parent = parent
        self.bound = set(parameters)
        self.parameters = parameters
        self.elsewhere: set[str] = set()  #: declared global or nonlocal

    def binds(self) -> Scope:
        """The scope in which a walrus binds: the one around all comprehensions."""
        scope = self
        while scope.kind == "comprehension" and scope.parent is not None:
            scope = scope.parent
        return scope


class TopNames(NamedTuple):
    """The names that statements of the module bind without a condition, and from which position on."""

    since: dict[str, Place]
    defined: frozenset[str]
    deleted: frozenset[str] = frozenset()

    def binds(self, name: ast.Name, *, inside: bool) -> bool:
        if name.id in self.deleted or name.id not in self.since:
            return False
        # A function's name is bound before its body runs, although the position of its end comes later.
        return (name.lineno, name.col_offset) >= self.since[name.id] or (inside and name.id in self.defined)


def top_names(body: list[ast.stmt], deleted: frozenset[str]) -> TopNames:
    since: dict[str, Place] = {}
    defined = set()
    for statement in body:
        end = (statement.end_lineno or 0, statement.end_col_offset or 0)
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if not statement.decorator_list:
                since.setdefault(statement.name, end)
                defined.add(statement.name)
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets: list[ast.expr] = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for name in _targets(targets) if statement.value is not None else ():
                since.setdefault(name, end)
    return TopNames(since, frozenset(defined), deleted)


def _targets(targets: list[ast.expr]) -> list[str]:
    found, waiting = [], list(targets)
    while waiting:
        target = waiting.pop()
        if isinstance(target, ast.Name):
            found.append(target.id)
        elif isinstance(target, (ast.Tuple, ast.List)):
            waiting.extend(target.elts)
        elif isinstance(target, ast.Starred):
            waiting.append(target.value)
    return found


def is_own(name: ast.Name, scope: Scope, top: TopNames) -> bool:
    """Whether the name is certainly not the builtin at this place."""
    inside, at = scope.kind != "module", scope
    while at.parent is not None:
        if at.kind in ("function", "comprehension"):
            if name.id in at.elsewhere:
                break
            if name.id in at.bound:
                return True
        at = at.parent
    return top.binds(name, inside=inside)


def is_parameter(name: ast.Name, scope: Scope) -> bool:
    """Whether the name is a parameter of the function around it."""
    at: Scope | None = scope
    while at is not None and name.id not in at.bound:
        at = at.parent
    return at is not None and name.id in at.parameters


def around_function(scope: Scope) -> bool:
    return scope.binds().kind == "function"
