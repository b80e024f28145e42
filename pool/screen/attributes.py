"""Rules S3xx: attributes that lead out of an object or out of a module."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from pool.screen.imports import Hit
from pool.screen.modules import Modules
from pool.screen.policy import Policy
from pool.screen.survey import Survey, chains
from pool.screen.words import HARMLESS, PUBLIC_UNDERSCORED, attribute_rule, is_dunder


def hits(
    seen: Survey, policy: Policy, modules: Modules, *, bound: Mapping[str, str], excused: AbstractSet[int]
) -> Iterator[Hit]:
    """`excused` are nodes that the rules on calls have judged."""
    for outermost, base, chain in chains(seen.attributes):
        path = bound.get(base.id) if isinstance(base, ast.Name) else None
        for node in chain:
            if id(node) not in excused:
                yield from _one(node, seen, policy, imported=path is not None)
        if path is not None and not _named(chain, policy):
            yield from _member(outermost, path, chain, modules=modules)
    yield from _bare(seen, modules, bound)
    yield from _patterns(seen, policy)


def _one(node: ast.Attribute, seen: Survey, policy: Policy, *, imported: bool) -> Iterator[Hit]:
    name = node.attr
    if name in policy.deny_names:
        yield "S210", node, name
        return
    if name in policy.allow_names:
        return
    rule = attribute_rule(name, seen.own)
    if rule is not None and not (rule == "S301" and not imported and _plain_use(node, policy)):
        yield rule, node, name
    elif _private(name) and (imported or (policy.strict and name not in seen.own)):
        yield "S303", node, name


def _private(name: str) -> bool:
    return name.startswith("_") and not is_dunder(name) and name not in PUBLIC_UNDERSCORED


def _plain_use(node: ast.Attribute, policy: Policy) -> bool:
    """`self.__class__.__name__`, `self.__dict__` of a value that has a name; that of a literal is a first step out."""
    named = isinstance(node.value, (ast.Name, ast.Attribute, ast.Subscript))
    return named and (node.attr == "__class__" or (node.attr == "__dict__" and not policy.strict))


def _named(chain: list[ast.Attribute], policy: Policy) -> bool:
    return any(node.attr in policy.allow_names for node in chain)


def _member(outermost: ast.Attribute, path: str, chain: list[ast.Attribute], *, modules: Modules) -> Iterator[Hit]:
    full = ".".join([path, *(node.attr for node in chain)])
    if modules.denies_member(full) or not modules.allows(full):
        yield "S304", outermost, full


def _bare(seen: Survey, modules: Modules, bound: Mapping[str, str]) -> Iterator[Hit]:
    """A package that is there only for the sake of an allowed submodule, used as a value."""
    only_below = {name for name, path in bound.items() if not modules.allows(path)}
    if only_below:
        bases = {id(node.value) for node in seen.attributes}
        yield from (
            ("S304", node, node.id) for node, _ in seen.loads if node.id in only_below and id(node) not in bases
        )


def _patterns(seen: Survey, policy: Policy) -> Iterator[Hit]:
    """`case C(__class__=x)` reads the attribute without naming it as one."""
    for node in seen.patterns:
        for name in node.kwd_attrs:
            rule = attribute_rule(name, seen.own)
            if name in policy.allow_names:
                continue
            if rule is not None or (is_dunder(name) and name not in HARMLESS):
                yield rule or "S301", node, name
            elif name == "obj" and _is_error(node.cls):
                yield "S306", node, name
            elif _private(name) and policy.strict and name not in seen.own:
                yield "S303", node, name


def _is_error(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return str(name).endswith(("Error", "Exception"))
