"""The screen, layer 1: reads a program before it runs and reports what cannot work in a sandbox, with a replacement.

    code ──▶ source.py ──▶ ast.parse ──▶ analysis.py ──▶ imports.py names.py strings.py ──▶ findings
             as text, S5xx   once        one pass        S1xx S3xx  S2xx     S4xx

The screen is not a security boundary. Code can hide what it does and pass the screen; the container is the boundary.
The screen only parses: it does not compile, evaluate, import or call anything of the code.

It imports the standard library, `pool.outcome` and `pool.errors` only, because it is copied into the worker image. The
child that runs a job calls `examine` and compiles the tree that it returns, so the source is parsed once. Users call
`check`. None of its types is a dataclass (see `pool.outcome`).
"""

from __future__ import annotations

import ast
import codecs
import warnings
from collections.abc import Iterable
from typing import NamedTuple

from pool.outcome import Finding
from pool.screen import source, strings
from pool.screen.analysis import analyse, place
from pool.screen.imports import Hit, attribute_hits, bindings, import_hits
from pool.screen.names import Names
from pool.screen.policy import MODES, Mode, Modules, Policy
from pool.screen.rules import RULES, Rule
from pool.screen.strings import Folding

__all__ = ["MAX_FINDINGS", "MODES", "RULES", "Mode", "Policy", "Reading", "Rule", "check", "examine"]

MAX_FINDINGS = 100


class Reading(NamedTuple):
    """The result of `examine`. Without findings, compile `program`: the tree, or the text if the mode is off."""

    program: ast.Module | str
    findings: tuple[Finding, ...] = ()


def check(code: str | bytes, *, screen: Mode | Policy = "standard") -> list[Finding]:
    """Return what the screen refuses in the code: at most 100 findings, in the order of the text.

    Raises SyntaxError if the code is not valid Python. Nothing is executed and no daemon is needed. A byte order mark
    at the start is ignored, as Python ignores it in a file.
    """
    code = code.removeprefix("\ufeff") if isinstance(code, str) else code.removeprefix(codecs.BOM_UTF8)
    policy = screen if isinstance(screen, Policy) else Policy(mode=screen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(examine(code, policy).findings)


def examine(code: str | bytes, policy: Policy, *, filename: str = "<job>") -> Reading:
    """Parse the code once and apply the rules. A child uses it so:

        reading = screen.examine(text, policy, filename=FILENAME)
        if reading.findings:                                            # the job ends `rejected`
        exec(compile(reading.program, FILENAME, "exec", dont_inherit=True), ...)

    Raises SyntaxError and gives warnings as compile() does. With the mode `off` it returns the text unread.
    """
    if isinstance(code, bytes):
        try:
            code = code.decode()
        except UnicodeDecodeError as error:
            return Reading("", (RULES["S503"].finding(f"bytes that are not UTF-8 (at {error.start})", 1, column=1),))
    if policy.mode == "off":
        return Reading(code)
    fault = source.first_fault(code)
    tree = source.parse(code, filename) if fault is None else fault
    if isinstance(tree, Finding):
        return Reading("", (tree,))
    return Reading(tree, _findings(_hits(tree, policy), source.Columns(code)))


def _hits(tree: ast.Module, policy: Policy) -> list[Hit]:
    seen, modules, folding = analyse(tree), Modules(policy), Folding()
    bound = bindings(seen, modules)
    names = Names(seen, policy, modules=modules, bound=bound, folding=folding)
    return [
        *import_hits(seen, policy, modules),
        *names.hits(),
        *attribute_hits(seen, policy, modules, bound=bound, excused=names.excused),
        *strings.hits(seen, policy, folding),
    ]


def _findings(hits: Iterable[Hit], columns: source.Columns) -> tuple[Finding, ...]:
    """In the order of the text; each rule at most once at a position."""
    first = sorted({(*place(node), rule, what) for rule, node, what in hits})[:MAX_FINDINGS]
    return tuple(RULES[rule].finding(what, line, column=columns.of(line, offset)) for line, offset, rule, what in first)
