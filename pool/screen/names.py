"""Rules S2xx: builtins that run text, open files or reach objects that the program cannot name, and hooks."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from pool.screen.analysis import Analysis
from pool.screen.imports import Hit
from pool.screen.policy import Modules, Policy
from pool.screen.scopes import Scope, around_function, is_own, is_parameter
from pool.screen.strings import Folding
from pool.screen.vocabulary import (
    BUILTINS,
    FRAME_PREFIXES,
    HARMLESS,
    HOOKS,
    INTERNAL,
    NAMES,
    STRICT_BUILTINS,
    attribute_rule,
    is_dunder,
)

_METACLASSES = frozenset({"ABCMeta", "EnumMeta", "EnumType"})
_STREAMS = frozenset({"/dev/stdin", "/dev/stdout", "/dev/stderr"})
_GETTERS = frozenset({"operator.attrgetter", "operator.methodcaller"})


class Names:
    """Judges names and calls; `excused` collects the attributes that it has judged in calls."""

    def __init__(
        self, seen: Analysis, policy: Policy, *, modules: Modules, bound: Mapping[str, str], folding: Folding
    ) -> None:
        self._seen = seen
        self._policy = policy
        self._modules = modules
        self._bound = bound
        self._folding = folding
        self._builtins = STRICT_BUILTINS if policy.strict else BUILTINS
        self.excused: set[int] = set()

    def hits(self) -> Iterator[Hit]:
        called = {id(call.func): call for call, _ in self._seen.calls}
        for name, scope in self._seen.loads:
            yield from self._name(name, scope, called.get(id(name)))
        for call, scope in self._seen.calls:
            yield from self._call(call, scope)
        yield from self._stores()
        for function in self._seen.functions:
            if function.name in HOOKS and function.name not in self._policy.allow_names:
                yield "S207", function, function.name
            yield from self._decorators(function.decorator_list)
        for node in self._seen.classes:
            yield from self._decorators(node.decorator_list)
            yield from self._metaclass(node)

    # ---- names ----

    def _name(self, name: ast.Name, scope: Scope, call: ast.Call | None) -> Iterator[Hit]:
        if name.id in self._policy.deny_names:
            if not is_own(name, scope, self._seen.top):
                yield "S210", name, name.id
        elif name.id in self._policy.allow_names:
            return
        elif is_dunder(name.id) and name.id != "__import__":
            if self._interpreters(name.id):
                yield "S206", name, name.id
        else:
            rule = self._builtins.get(name.id)
            if rule is not None and not is_own(name, scope, self._seen.top) and not self._honest(rule, scope, call):
                yield rule, name, name.id

    def _interpreters(self, name: str) -> bool:
        if name in NAMES or name in HARMLESS:
            return False
        return name in INTERNAL or name not in self._seen.own

    def _honest(self, rule: str, scope: Scope, call: ast.Call | None) -> bool:
        """Allowed calls of builtins that are otherwise refused (as values, or with other arguments)."""
        if call is None or self._policy.strict:
            return False
        if rule == "S204":
            return self._looks_at_own(call, scope)
        if rule == "S202":
            return bool(call.args) and self._is_at_hand(call.args[0], scope)
        return rule == "S205" and self._named_attribute(call, scope)

    def _is_at_hand(self, file: ast.expr, scope: Scope) -> bool:
        """Whether the program's text shows that this is a file in the work directory or a standard stream."""
        if not isinstance(file, ast.Name):
            return self._names_file(file)
        values = self._seen.assigned.get(file.id, [])
        elsewhere = file.id in self._seen.captured or file.id in self._bound or is_parameter(file, scope)
        stores = sum(each.id == file.id for each in self._seen.stores)
        return 0 < len(values) == stores and not elsewhere and all(map(self._names_file, values))

    def _names_file(self, file: ast.expr) -> bool:
        if isinstance(file, ast.Constant) and isinstance(file.value, int):
            return file.value in {0, 1, 2}
        text, beginning = self._folding.text(file), self._folding.beginning(file)
        if text in _STREAMS:
            return True
        return bool(beginning) and beginning[0] not in "/~." and ".." not in (text or beginning).split("/")

    def _looks_at_own(self, call: ast.Call, scope: Scope) -> bool:
        """Whether it is `locals()` in a function, or `vars(value)` of something that is not a module."""
        assert isinstance(call.func, ast.Name)
        if not call.args:
            return call.func.id != "globals" and around_function(scope)
        return call.func.id == "vars" and not self._is_imported(call.args[0])

    def _is_imported(self, node: ast.expr) -> bool:
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in self._bound

    # ---- calls ----

    def _named_attribute(self, call: ast.Call, scope: Scope) -> bool:
        """Judge getattr, setattr and the like, where the name is known or the object is the method's `self`."""
        assert isinstance(call.func, ast.Name)
        if len(call.args) < 2 or any(isinstance(each, ast.Starred) for each in call.args):
            return False
        base, name = call.args[0], call.args[1]
        text = self._folding.text(name)
        if text is not None:
            return self._harmless(text, imported=self._is_imported(base)) and not self._is_denied(base, text)
        if call.func.id != "getattr":  # it changes an object of the job and returns nothing
            return not self._is_imported(base)
        return _is_self(base, scope) or (not self._is_imported(base) and self._begins_harmless(name))

    def _is_denied(self, base: ast.expr, name: str) -> bool:
        """Whether the policy refuses the attribute: `getattr(sys, "modules")` is `sys.modules`."""
        path = self._path(base)
        return bool(path) and self._modules.denies_member(f"{path}.{name}")

    def _harmless(self, name: str, *, imported: bool) -> bool:
        if name in self._policy.deny_names:
            return False
        if name in self._policy.allow_names:
            return True
        return attribute_rule(name, self._seen.own) is None and not (imported and name.startswith("_"))

    def _begins_harmless(self, name: ast.expr) -> bool:
        """Whether the constant begin excludes the interpreter's own names, as in `"do_" + kind`."""
        beginning = self._folding.beginning(name)
        return bool(beginning) and beginning[0] != "_" and not beginning.startswith(FRAME_PREFIXES)

    def _call(self, call: ast.Call, scope: Scope) -> Iterator[Hit]:
        function = call.func
        if isinstance(function, ast.Attribute) and function.attr == "__getattribute__":
            if self._own_lookup(call, function, scope):
                self.excused.add(id(function))
        elif self._path(function) in _GETTERS:
            yield from self._getter(call)
        elif self._policy.strict and self._makes_class(call, scope):
            yield "S209", call, "type(name, bases, namespace)"

    def _makes_class(self, call: ast.Call, scope: Scope) -> bool:
        name = call.func
        if not isinstance(name, ast.Name) or name.id != "type" or "type" in self._policy.allow_names:
            return False
        return len(call.args) > 1 and not is_own(name, scope, self._seen.top)

    def _own_lookup(self, call: ast.Call, function: ast.Attribute, scope: Scope) -> bool:
        """Whether it is `super().__getattribute__(name)` or `object.__getattribute__(self, name)` in a method."""
        name = call.args[-1] if call.args else None
        text = None if name is None else self._folding.text(name)
        if self._policy.strict or name is None or (text is not None and not self._harmless(text, imported=False)):
            return False
        match function.value:
            case ast.Call(func=ast.Name(id="super")):
                return len(call.args) == 1
            case ast.Name(id="object" | "type"):
                return len(call.args) > 1 and _is_self(call.args[0], scope)
        return len(call.args) == 1 and _is_self(function.value, scope)

    def _path(self, node: ast.expr) -> str:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return f"{self._bound.get(node.value.id, '')}.{node.attr}"
        return self._bound.get(node.id, "") if isinstance(node, ast.Name) else ""

    def _getter(self, call: ast.Call) -> Iterator[Hit]:
        """The arguments that are attribute names: all of attrgetter, the first of methodcaller."""
        assert isinstance(call.func, (ast.Name, ast.Attribute))
        only_first = self._path(call.func).endswith("methodcaller")
        for name in call.args[:1] if only_first else call.args:
            text = self._folding.text(name)
            if text is None or not all(self._harmless(part, imported=False) for part in text.split(".")):
                yield "S205", name, text or "of attrgetter"

    # ---- definitions ----

    def _stores(self) -> Iterator[Hit]:
        for name in self._seen.stores:
            if name.id in self._policy.allow_names:
                continue
            if name.id in HOOKS:
                yield "S207", name, name.id
            elif name.id in INTERNAL and name.id not in NAMES:
                yield "S206", name, name.id

    def _decorators(self, nodes: list[ast.expr]) -> Iterator[Hit]:
        """A decorator is a call without call syntax, as in `@input`. Other rules find the rest as names."""
        for node in nodes:
            if isinstance(node, ast.Name) and node.id == "input" and "input" not in self._policy.allow_names:
                yield "S203", node, "@input"

    def _metaclass(self, node: ast.ClassDef) -> Iterator[Hit]:
        for keyword in node.keywords:
            if keyword.arg != "metaclass":
                continue
            value = keyword.value
            name = value.id if isinstance(value, ast.Name) else getattr(value, "attr", None)
            if name is None or (self._policy.strict and name not in _METACLASSES):
                yield "S208", keyword, f"metaclass={name or '...'}"


def _is_self(node: ast.expr, scope: Scope) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls") and is_parameter(node, scope)
