"""The rules: their ids, what each refuses, and what to write instead.

Ids are stable, because policies, statistics and tests name them; a retired id is not used again. The first digit says
what the rule looks at: 1 imports, 2 names and calls, 3 attributes, 4 strings, 5 the source as a whole.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from pool.outcome import Finding
from pool.screen.vocabulary import NETWORK, PROGRAMS, TERMINAL

_PLAIN = "write the attribute out, as in value.name"
_EXCHANGE = "take arguments, and return the value"
_PART = (
    "use another part; import a module by its own name, if the pool allows it; "
    "or add `screen: {allow_modules: [{}]}` to the pool"
)
_BY_NAME = "use plain names and attributes"


class Rule(NamedTuple):
    """`reason` and `remedy` have `{}` where the name that was found goes."""

    id: str
    title: str
    reason: str
    remedy: str

    def finding(self, what: str, line: int, *, column: int) -> Finding:
        found = shortened(what)
        remedy = _of_module(found) if self.id == "S101" else self.remedy
        reason, remedy = self.reason.replace("{}", found), remedy.replace("{}", found)
        return Finding(rule=self.id, line=line, column=column, reason=reason, remedy=remedy)


#: For modules that could not work in a job if the screen let them pass.
_USELESS = (
    (NETWORK, "a job has no network; give it the data as arguments, files or data sets"),
    (
        PROGRAMS,
        "a job may not start programs, unless the pool has `allow: [subprocess], screen: {allow_modules: [{}]}`",
    ),
    (TERMINAL, "a job has no screen and no keyboard; return the values"),
)


def _of_module(name: str) -> str:
    """What to write instead of the import of a module that the pool does not allow."""
    top = name.partition(".")[0]
    for modules, remedy in _USELESS:
        if name in modules or top in modules:
            return remedy
    remedy = RULES["S101"].remedy
    return remedy if top in sys.stdlib_module_names else f"{remedy}, whose image or the job's files must have it"


def shortened(what: str, most: int = 80) -> str:
    """One printable line, because it goes into logs and onto terminals."""
    text = "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in what[: most + 1])
    return text if len(text) <= most else f"{text[: most - 3]}..."


_ALL = (
    Rule(
        "S101",
        "import outside the allow-list",
        "this pool does not allow the module {}",
        "use what is allowed (numpy, pandas, math, ...), or add `screen: {allow_modules: [{}]}` to the pool",
    ),
    Rule("S102", "relative import", "{} is a relative import, and a job is not a package", "put the code into the job"),
    Rule("S103", "star import", "{} imports names that the screen cannot see", "import the names that you use"),
    Rule(
        "S104",
        "part of a module",
        "{} is a part of its module that is private or that a job may not use",
        _PART,
    ),
    Rule("S201", "text run as code", "{} runs text as code", "write the code itself; for literals, ast.literal_eval"),
    Rule(
        "S202",
        "opening files",
        "this pool refuses {}() of what is not seen to be in the work directory",
        "name the file in the call, as in open('data.csv') or open(f'out/{n}.txt'), or add "
        "`screen: {allow_names: [{}]}` to the pool; for text in memory, io.StringIO",
    ),
    Rule("S203", "waiting for input", "{} waits for a person to type, and a job has none", "take an argument instead"),
    Rule("S204", "whole namespaces", "{} reaches whole namespaces", "keep what you look up by name in a dict"),
    Rule("S205", "attribute by a computed name", "{} reaches an attribute whose name is computed", _PLAIN),
    Rule("S206", "interpreter's own name", "{} belongs to the interpreter", _BY_NAME),
    Rule("S207", "method that the interpreter calls", "{} makes plain syntax call your code", "write a plain method"),
    Rule("S208", "computed metaclass", "{} is not the name of a class", "write metaclass=ABCMeta, or no metaclass"),
    Rule("S209", "class made by a call", "{} makes a class by a call", "write a class statement or a dataclass"),
    Rule("S210", "name that the pool denies", "this pool denies {} (screen.deny_names)", "do without it"),
    Rule("S301", "interpreter's own attribute", "the attribute {} belongs to the interpreter", _BY_NAME),
    Rule(
        "S302", "frame or code object", "the attribute {} reaches frames or code", "do without frames and code objects"
    ),
    Rule(
        "S303",
        "private attribute",
        "{} is private",
        "use the public interface, or add `screen: {allow_names: [{}]}` to the pool",
    ),
    Rule(
        "S304",
        "module inside a module",
        "{} is a part of its module that a job may not use",
        _PART,
    ),
    Rule("S305", "files or pickles of a library", "{} reads or writes files or pickles", _EXCHANGE),
    Rule("S306", "object of an error", "{} takes the object out of an error", "catch the error and use your own names"),
    Rule("S401", "attribute in a format string", "the format string reaches {}", "format the value itself"),
    Rule("S402", "interpreter's name in a string", "the string {} names a part of the interpreter", _BY_NAME),
    Rule(
        "S403",
        "attribute in an expression string",
        "the expression {} reaches attributes",
        "use @name of a plain value",
    ),
    Rule("S404", "code in an annotation", "the annotation {} contains code", "name a type"),
    Rule("S405", "network address", "{} is in the network, and a job has no network", _EXCHANGE),
    Rule("S501", "too long", "the code has {} bytes; the limit is 262144", "pass data as arguments"),
    Rule("S502", "too deep", "the code is nested too deeply for the parser", "split long expressions; use a list"),
    Rule("S503", "not text", "the code has {}", "save it as UTF-8 text"),
    Rule("S504", "misleading encoding", "the code claims the encoding {} but is read as UTF-8", "remove the comment"),
    Rule("S505", "text shown in another order", "the code has the control character {}", "write an escape"),
)

RULES = {rule.id: rule for rule in _ALL}


def table() -> str:
    """The rules as a Markdown table; docs/screen.md contains it."""
    cells = ((rule.id, rule.title, rule.reason, rule.remedy) for rule in _ALL)
    rows = [f"| {' | '.join(row)} |".replace("{}", "…") for row in cells]
    return "\n".join(["| rule | refuses | reason | instead |", "|---|---|---|---|", *rows])
