"""Rules S1xx and S3xx: the imports of a program, and the attributes that it uses of modules and other objects."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from pool.screen.analysis import Analysis
from pool.screen.policy import Modules, Policy
from pool.screen.vocabulary import HARMLESS, PUBLIC_UNDERSCORED, attribute_rule, hides_names, is_dunder

Hit = tuple[str, ast.AST, str]


def import_hits(seen: Analysis, policy: Policy, modules: Modules) -> Iterator[Hit]:
    used = {name.id for name, _ in seen.loads}
    for node in seen.imports:
        if isinstance(node, ast.Import):
            yield from _plain(node, modules)
        elif node.level:
            yield "S102", node, f"from {'.' * node.level}{node.module or ''}"
        else:
            yield from _from(node, node.module or "", policy=policy, modules=modules, used=used)


def _plain(node: ast.Import, modules: Modules) -> Iterator[Hit]:
    for alias in node.names:
        if not modules.allows(alias.name):
            yield "S101", alias, alias.name
        elif _hidden(alias.name):
            yield "S104", alias, alias.name


def _from(
    node: ast.ImportFrom, module: str, *, policy: Policy, modules: Modules, used: AbstractSet[str]
) -> Iterator[Hit]:
    whole = modules.allows(module)
    if not whole and not all(modules.allows(f"{module}.{alias.name}") for alias in node.names):
        yield "S101", node, module
        return
    if _hidden(module):
        yield "S104", node, module
    for alias in node.names:
        path = f"{module}.{alias.name}"
        if alias.name == "*":
            if policy.strict or hides_names(module, used):
                yield "S103", node, f"from {module} import *"
        elif alias.name in policy.deny_names:
            yield "S210", alias, alias.name
        elif alias.name not in policy.allow_names and (_hidden(alias.name) or modules.denies_member(path)):
            yield "S104", alias, path


def _hidden(name: str) -> bool:
    return any(part.startswith("_") and part not in HARMLESS and part != "__future__" for part in name.split("."))


def bindings(seen: Analysis, modules: Modules) -> dict[str, str]:
    """For each name bound by an allowed import, the dotted name that it stands for."""
    bound: dict[str, str] = {}
    for node in seen.imports:
        for alias in node.names:
            if isinstance(node, ast.Import):
                if modules.allows(alias.name):
                    bound[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
            elif not node.level and node.module and modules.allows(f"{node.module}.{alias.name}"):
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return bound


# ---- attributes ----


def attribute_hits(
    seen: Analysis, policy: Policy, modules: Modules, *, bound: Mapping[str, str], excused: AbstractSet[int]
) -> Iterator[Hit]:
    """`excused` are nodes that the rules on calls have judged."""
    for outermost, base, chain in _chains(seen.attributes):
        path = bound.get(base.id) if isinstance(base, ast.Name) else None
        for node in chain:
            if id(node) not in excused:
                yield from _one(node, seen, policy, imported=path is not None)
        if path is not None and not _named(chain, policy):
            yield from _member(outermost, path, chain, modules=modules)
    yield from _bare(seen, modules, bound)
    yield from _patterns(seen, policy)


def _chains(attributes: list[ast.Attribute]) -> Iterator[tuple[ast.Attribute, ast.expr, list[ast.Attribute]]]:
    """Each longest `base.a.b.c` once: the outermost attribute, the base, and all attributes from the base outwards."""
    inner = {id(each.value) for each in attributes}
    for outermost in attributes:
        if id(outermost) in inner:
            continue
        chain, at = [], outermost
        while True:
            chain.append(at)
            if not isinstance(at.value, ast.Attribute):
                break
            at = at.value
        yield outermost, at.value, chain[::-1]


def _one(node: ast.Attribute, seen: Analysis, policy: Policy, *, imported: bool) -> Iterator[Hit]:
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
    """Whether it is like `self.__class__.__name__` on a variable. On a literal it begins a way out, and is refused."""
    named = isinstance(node.value, (ast.Name, ast.Attribute, ast.Subscript))
    return named and (node.attr == "__class__" or (node.attr == "__dict__" and not policy.strict))


def _named(chain: list[ast.Attribute], policy: Policy) -> bool:
    return any(node.attr in policy.allow_names for node in chain)


def _member(outermost: ast.Attribute, path: str, chain: list[ast.Attribute], *, modules: Modules) -> Iterator[Hit]:
    full = ".".join([path, *(node.attr for node in chain)])
    if modules.denies_member(full) or not modules.allows(full):
        yield "S304", outermost, full


def _bare(seen: Analysis, modules: Modules, bound: Mapping[str, str]) -> Iterator[Hit]:
    """Whether a package that is imported only for an allowed submodule is used as a value."""
    only_below = {name for name, path in bound.items() if not modules.allows(path)}
    if only_below:
        bases = {id(node.value) for node in seen.attributes}
        yield from (
            ("S304", node, node.id) for node, _ in seen.loads if node.id in only_below and id(node) not in bases
        )


def _patterns(seen: Analysis, policy: Policy) -> Iterator[Hit]:
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
