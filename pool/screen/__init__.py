"""The first layer: it reads a program, and says early and with a reason what will not do in a sandbox.

    code ──▶ source.py ──▶ ast.parse ──▶ survey.py ──▶ imports, names, attributes, strings ──▶ findings
             text, size     once          one walk       rules S1xx S2xx S3xx S4xx

It is a courtesy and no boundary: code that hides what it does well enough passes, and finds itself in the container
with nothing gained. It only parses: nothing of the code is compiled, evaluated, imported or called.

Standard library, `pool.model` and `pool.errors` only: it is copied into the worker image. A job's child calls
`examine`, and compiles what that returns, so that the source is parsed once. A user calls `check`.
"""

from __future__ import annotations

import ast
import codecs
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from pool.model import Finding
from pool.screen import attributes, imports, source, strings
from pool.screen.modules import Modules
from pool.screen.names import Names
from pool.screen.policy import MODES, Mode, Policy
from pool.screen.rules import RULES, Rule
from pool.screen.survey import place, survey
from pool.screen.texts import Folding

__all__ = ["MAX_FINDINGS", "MODES", "RULES", "Mode", "Policy", "Reading", "Rule", "check", "examine"]

MAX_FINDINGS = 100


@dataclass(frozen=True, slots=True)
class Reading:
    """`program` is what to compile if there are no findings: the tree, or the text when the screen is off."""

    program: ast.Module | str
    findings: tuple[Finding, ...] = ()


def check(code: str | bytes, *, screen: Mode | Policy = "standard") -> list[Finding]:
    """What the screen has against the code, at most 100 findings in their order in the text.

    Raises SyntaxError for code that is no Python. The code is not executed, and needs no daemon. A byte order mark at
    its start is passed over, as Python does with a file.
    """
    code = code.removeprefix("\ufeff") if isinstance(code, str) else code.removeprefix(codecs.BOM_UTF8)
    policy = screen if isinstance(screen, Policy) else Policy(mode=screen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(examine(code, policy).findings)


def examine(code: str | bytes, policy: Policy, *, filename: str = "<job>") -> Reading:
    """Parse once, and look. A child does with it:

        reading = screen.examine(text, policy, filename=FILENAME)
        if reading.findings:                                            # the job ends `rejected`
        exec(compile(reading.program, FILENAME, "exec", dont_inherit=True), ...)

    Raises SyntaxError as compile() would, and gives its warnings. When the policy is off it looks at nothing.
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


def _hits(tree: ast.Module, policy: Policy) -> list[imports.Hit]:
    seen, modules, folding = survey(tree), Modules(policy), Folding()
    bound = imports.bindings(seen, modules)
    names = Names(seen, policy, bound=bound, folding=folding)
    return [
        *imports.hits(seen, policy, modules),
        *names.hits(),
        *attributes.hits(seen, policy, modules, bound=bound, excused=names.excused),
        *strings.hits(seen, policy, folding),
    ]


def _findings(hits: Iterable[imports.Hit], columns: source.Columns) -> tuple[Finding, ...]:
    """In the order of the text, each rule once at a place."""
    first = sorted({(*place(node), rule, what) for rule, node, what in hits})[:MAX_FINDINGS]
    return tuple(RULES[rule].finding(what, line, column=columns.of(line, offset)) for line, offset, rule, what in first)
