"""Changes that break a function: one at a time, in a fixed order, those that are most likely noticed first."""

import ast
import copy
from collections.abc import Iterator

_SWAPS: dict[type, type] = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def mutants(source: str, name: str) -> Iterator[str]:
    """Programs that differ from `source` in one place of the function `name`."""
    tree = ast.parse(source)
    for change in (_negate_comparison, _swap_operator, _other_constant, _no_return_value):
        for at in range(len(_nodes(tree, name))):
            mutant = copy.deepcopy(tree)
            if change(_nodes(mutant, name)[at]):
                yield ast.unparse(ast.fix_missing_locations(mutant))


def _nodes(tree: ast.Module, name: str) -> list[ast.AST]:
    """Of the last function of that name, without its documentation and annotations."""
    function = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == name][-1]
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return [node for statement in body for node in ast.walk(statement)]


def _negate_comparison(node: ast.AST) -> bool:
    if not isinstance(node, ast.Compare):
        return False
    node.ops[0] = _SWAPS[type(node.ops[0])]()
    return True


def _swap_operator(node: ast.AST) -> bool:
    if not isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) or type(node.op) not in _SWAPS:
        return False
    node.op = _SWAPS[type(node.op)]()
    return True


def _other_constant(node: ast.AST) -> bool:
    if not isinstance(node, ast.Constant):
        return False
    match node.value:
        case bool():
            node.value = not node.value
        case int() | float():
            node.value += 1
        case str():
            node.value += "?"
        case _:
            return False
    return True


def _no_return_value(node: ast.AST) -> bool:
    if not isinstance(node, ast.Return) or node.value is None:
        return False
    node.value = ast.Constant(None)
    return True
