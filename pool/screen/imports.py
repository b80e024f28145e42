"""Rules S1xx: what is imported, and under which names the program has it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from pool.screen.modules import Modules, hides_names
from pool.screen.policy import Policy
from pool.screen.survey import Survey
from pool.screen.words import HARMLESS

Hit = tuple[str, ast.AST, str]


def hits(seen: Survey, policy: Policy, modules: Modules) -> Iterator[Hit]:
    for node in seen.imports:
        if isinstance(node, ast.Import):
            yield from _plain(node, modules)
        elif node.level:
            yield "S102", node, f"from {'.' * node.level}{node.module or ''}"
        else:
            yield from _from(node, node.module or "", policy=policy, modules=modules)


def _plain(node: ast.Import, modules: Modules) -> Iterator[Hit]:
    for alias in node.names:
        if not modules.allows(alias.name):
            yield "S101", alias, alias.name
        elif _hidden(alias.name):
            yield "S104", alias, alias.name


def _from(node: ast.ImportFrom, module: str, *, policy: Policy, modules: Modules) -> Iterator[Hit]:
    whole = modules.allows(module)
    if not whole and not all(modules.allows(f"{module}.{alias.name}") for alias in node.names):
        yield "S101", node, module
        return
    if _hidden(module):
        yield "S104", node, module
    for alias in node.names:
        path = f"{module}.{alias.name}"
        if alias.name == "*":
            if policy.strict or hides_names(module):
                yield "S103", node, f"from {module} import *"
        elif alias.name in policy.deny_names:
            yield "S210", alias, alias.name
        elif alias.name not in policy.allow_names and (_hidden(alias.name) or modules.denies_member(path)):
            yield "S104", alias, path


def _hidden(name: str) -> bool:
    return any(part.startswith("_") and part not in HARMLESS and part != "__future__" for part in name.split("."))


def bindings(seen: Survey, modules: Modules) -> dict[str, str]:
    """The dotted name of what each imported name is, for what may be imported."""
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
