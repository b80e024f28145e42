"""One pass over the syntax tree: collects what the rules look at, each node with its scope. It makes no decision.

The pass is linear in the number of nodes and does not recurse.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

from pool.screen.scopes import Scope, TopNames, top_names

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
Waiting = list[tuple[ast.AST, Scope]]


class Analysis:
    """`own` are the names with a leading underscore that the program itself defines or assigns.

    `assigned` has the values of names in statements of the form `name = value`. `captured` are names that are bound
    without a node of their own.
    """

    def __init__(self) -> None:
        self.module = Scope("module")
        self.imports: list[ast.Import | ast.ImportFrom] = []
        self.loads: list[tuple[ast.Name, Scope]] = []
        self.stores: list[ast.Name] = []
        self.assigned: dict[str, list[ast.expr]] = {}
        self.captured: set[str] = set()
        self.attributes: list[ast.Attribute] = []
        self.calls: list[tuple[ast.Call, Scope]] = []
        self.texts: list[ast.Constant] = []
        self.joins: list[ast.expr] = []
        self.functions: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
        self.classes: list[ast.ClassDef] = []
        self.patterns: list[ast.MatchClass] = []
        self.annotations: list[ast.expr] = []
        self.own: set[str] = set()
        self.deleted: set[str] = set()
        self.top = TopNames({}, frozenset())


def analyse(tree: ast.Module) -> Analysis:
    seen = Analysis()
    waiting: Waiting = [(tree, seen.module)]
    while waiting:
        node, scope = waiting.pop()
        kind = type(node)
        note = _NOTES.get(kind)
        if note is not None:
            note(seen, node, scope)
        enter = _SCOPED.get(kind)
        if enter is None:
            _push(waiting, node, scope)
        else:
            enter(waiting, node, scope)
    seen.top = top_names(tree.body, frozenset(seen.deleted))
    return seen


#: Fields that never lead to anything a rule looks at.
_DULL = frozenset({"ctx", "op", "ops", "id", "attr", "name", "kind", "type_comment", "type_ignores", "lineno"})


def _push(waiting: Waiting, node: ast.AST, scope: Scope) -> None:
    for name in node._fields:
        if name in _DULL:
            continue
        child = getattr(node, name, None)
        if isinstance(child, list):
            waiting.extend([(each, scope) for each in child if isinstance(each, ast.AST)])
        elif isinstance(child, ast.AST):
            waiting.append((child, scope))


def _several(waiting: Waiting, nodes: list[ast.expr] | list[ast.stmt] | list[ast.expr | None], scope: Scope) -> None:
    waiting.extend([(node, scope) for node in nodes if node is not None])


# ---- scopes ----


def _enter_function(waiting: Waiting, node: ast.AST, scope: Scope) -> None:
    """Decorators, defaults and annotations are evaluated in the scope around it."""
    assert isinstance(node, Function)
    arguments = node.args
    parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    parameters += [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
    names = frozenset(each.arg for each in parameters)
    inner = Scope("function", scope, parameters=names)
    _several(waiting, arguments.defaults, scope)
    _several(waiting, arguments.kw_defaults, scope)
    _several(waiting, [each.annotation for each in parameters], scope)
    if isinstance(node, ast.Lambda):
        waiting.append((node.body, inner))
        return
    _several(waiting, node.decorator_list, scope)
    _several(waiting, [node.returns], scope)
    waiting.extend([(each, scope) for each in getattr(node, "type_params", ())])
    _several(waiting, node.body, inner)


def _enter_class(waiting: Waiting, node: ast.AST, scope: Scope) -> None:
    assert isinstance(node, ast.ClassDef)
    _several(waiting, node.decorator_list, scope)
    _several(waiting, node.bases, scope)
    waiting.extend([(each, scope) for each in (*node.keywords, *getattr(node, "type_params", ()))])
    _several(waiting, node.body, Scope("class", scope))


def _enter_comprehension(waiting: Waiting, node: ast.AST, scope: Scope) -> None:
    """The first iterable is evaluated in the scope around it."""
    assert isinstance(node, Comprehension)
    inner = Scope("comprehension", scope)
    first = node.generators[0]
    waiting.append((first.iter, scope))
    _several(waiting, [first.target, *first.ifs], inner)
    waiting.extend([(each, inner) for each in node.generators[1:]])
    _several(waiting, [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt], inner)


def _enter_expression(waiting: Waiting, node: ast.AST, scope: Scope) -> None:
    """A bare text, such as a docstring, does nothing."""
    assert isinstance(node, ast.Expr)
    if not isinstance(node.value, ast.Constant):
        waiting.append((node.value, scope))


def _enter_walrus(waiting: Waiting, node: ast.AST, scope: Scope) -> None:
    assert isinstance(node, ast.NamedExpr)
    waiting.append((node.target, scope.binds()))
    waiting.append((node.value, scope))


# ---- notes ----


def _note_name(seen: Analysis, node: ast.AST, scope: Scope) -> None:
    assert isinstance(node, ast.Name)
    if isinstance(node.ctx, ast.Load):
        seen.loads.append((node, scope))
        return
    if isinstance(node.ctx, ast.Del):
        seen.deleted.add(node.id)
    seen.stores.append(node)
    scope.bound.add(node.id)
    _note_own(seen, node.id)


def _note_own(seen: Analysis, name: str) -> None:
    if name.startswith("_"):
        seen.own.add(name)


def _note_attribute(seen: Analysis, node: ast.AST, _scope: Scope) -> None:
    assert isinstance(node, ast.Attribute)
    seen.attributes.append(node)
    if not isinstance(node.ctx, ast.Load):
        _note_own(seen, node.attr)


def _note_assignment(seen: Analysis, node: ast.AST, _scope: Scope) -> None:
    assert isinstance(node, ast.Assign)
    for target in node.targets:
        if isinstance(target, ast.Name):
            seen.assigned.setdefault(target.id, []).append(node.value)


def _note_definition(seen: Analysis, node: ast.AST, scope: Scope) -> None:
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    scope.bound.add(node.name)
    seen.captured.add(node.name)
    _note_own(seen, node.name)
    if isinstance(node, ast.ClassDef):
        seen.classes.append(node)
    else:
        seen.functions.append(node)
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        annotated = [each.annotation for each in every if each is not None]
        seen.annotations.extend(each for each in (*annotated, node.returns) if each is not None)


def _note_import(seen: Analysis, node: ast.AST, scope: Scope) -> None:
    assert isinstance(node, (ast.Import, ast.ImportFrom))
    seen.imports.append(node)
    scope.bound.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)


def _note_capture(seen: Analysis, node: ast.AST, scope: Scope) -> None:
    """The names that `except ... as`, `case ... as`, `case *...` and `case {**...}` bind."""
    name = getattr(node, "rest" if isinstance(node, ast.MatchMapping) else "name", None)
    if isinstance(name, str):
        scope.bound.add(name)
        seen.captured.add(name)


def _note_elsewhere(_seen: Analysis, node: ast.AST, scope: Scope) -> None:
    assert isinstance(node, (ast.Global, ast.Nonlocal))
    scope.elsewhere.update(node.names)


def _note_call(seen: Analysis, node: ast.AST, scope: Scope) -> None:
    assert isinstance(node, ast.Call)
    seen.calls.append((node, scope))


def _note_text(seen: Analysis, node: ast.AST, _scope: Scope) -> None:
    assert isinstance(node, ast.Constant)
    if isinstance(node.value, (str, bytes)):
        seen.texts.append(node)


def _note_join(seen: Analysis, node: ast.AST, _scope: Scope) -> None:
    assert isinstance(node, (ast.BinOp, ast.JoinedStr, ast.Subscript))
    if not isinstance(node, ast.Subscript) or isinstance(node.slice, ast.Slice):
        seen.joins.append(node)


def _note_pattern(seen: Analysis, node: ast.AST, _scope: Scope) -> None:
    assert isinstance(node, ast.MatchClass)
    seen.patterns.append(node)


def _note_annotation(seen: Analysis, node: ast.AST, _scope: Scope) -> None:
    assert isinstance(node, ast.AnnAssign)
    seen.annotations.append(node.annotation)
    if isinstance(node.target, ast.Name) and node.value is not None:
        seen.assigned.setdefault(node.target.id, []).append(node.value)


_NOTES: dict[type[ast.AST], Callable[[Analysis, ast.AST, Scope], None]] = {
    ast.AnnAssign: _note_annotation,
    ast.Assign: _note_assignment,
    ast.AsyncFunctionDef: _note_definition,
    ast.Attribute: _note_attribute,
    ast.BinOp: _note_join,
    ast.Call: _note_call,
    ast.ClassDef: _note_definition,
    ast.Constant: _note_text,
    ast.ExceptHandler: _note_capture,
    ast.FunctionDef: _note_definition,
    ast.Global: _note_elsewhere,
    ast.Import: _note_import,
    ast.ImportFrom: _note_import,
    ast.JoinedStr: _note_join,
    ast.MatchAs: _note_capture,
    ast.MatchClass: _note_pattern,
    ast.MatchMapping: _note_capture,
    ast.MatchStar: _note_capture,
    ast.Name: _note_name,
    ast.Nonlocal: _note_elsewhere,
    ast.Subscript: _note_join,
}
_SCOPED: dict[type[ast.AST], Callable[[Waiting, ast.AST, Scope], None]] = {
    ast.AsyncFunctionDef: _enter_function,
    ast.ClassDef: _enter_class,
    ast.DictComp: _enter_comprehension,
    ast.Expr: _enter_expression,
    ast.FunctionDef: _enter_function,
    ast.GeneratorExp: _enter_comprehension,
    ast.Lambda: _enter_function,
    ast.ListComp: _enter_comprehension,
    ast.NamedExpr: _enter_walrus,
    ast.SetComp: _enter_comprehension,
}


def place(node: ast.AST) -> tuple[int, int]:
    """Line from 1 and UTF-8 column from 0. An attribute's place is that of its own name, not of the chain's begin."""
    if isinstance(node, ast.Attribute) and node.end_lineno is not None and node.end_col_offset is not None:
        return node.end_lineno, max(0, node.end_col_offset - len(node.attr.encode()))
    return getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
