"""The rules: their ids, what they are against, and what to do instead.

Ids are stable: policies, statistics and tests name them. An id that is given up is not used again. The first digit is
what the rule looks at: 1 imports, 2 names and calls, 3 attributes, 4 strings, 5 the source as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from pool.model import Finding

_COMPUTE = (
    "compute with what is allowed (numpy, pandas, math, ...), or have the pool allow it under screen.allow_modules"
)
_PLAIN = "write the attribute out, as in value.name"
_EXCHANGE = "take arguments, and return the value"
_NOTHING_HIDDEN = "name what you use directly, in plain text"
_ALLOW_NAME = "have the pool allow it under screen.allow_names"


@dataclass(frozen=True, slots=True)
class Rule:
    """`reason` has one place, `{}`, for what was found."""

    id: str
    title: str
    reason: str
    remedy: str

    def finding(self, what: str, line: int, *, column: int) -> Finding:
        reason = self.reason.replace("{}", shortened(what))
        return Finding(rule=self.id, line=line, column=column, reason=reason, remedy=self.remedy)


def shortened(what: str, most: int = 80) -> str:
    """On one line and printable, for it goes into logs and onto terminals."""
    text = "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in what[: most + 1])
    return text if len(text) <= most else f"{text[: most - 3]}..."


_ALL = (
    Rule("S101", "import outside the allow-list", "the module {} is not allowed here", _COMPUTE),
    Rule("S102", "relative import", "{} is a relative import, and a job is no package", "put the code into the job"),
    Rule("S103", "star import", "{} brings in names that cannot be seen", "import the names that you use"),
    Rule("S104", "import of what a module hides", "{} reaches into the module's own workings", _COMPUTE),
    Rule(
        "S201", "running text as code", "{} runs text as code", "write the code itself; for literals, ast.literal_eval"
    ),
    Rule("S202", "opening files", "{} opens files, and there are none here", f"{_EXCHANGE}; for text, io.StringIO"),
    Rule("S203", "waiting for a person", "{} waits for a person, and there is none", "take an argument instead"),
    Rule("S204", "reaching namespaces", "{} reaches whole namespaces", "keep what you look up by name in a dict"),
    Rule("S205", "attribute by a computed name", "{} reaches an attribute whose name cannot be seen", _PLAIN),
    Rule("S206", "name of the interpreter's own", "{} belongs to the interpreter", _NOTHING_HIDDEN),
    Rule("S207", "hook that makes syntax a call", "{} turns plain syntax into a hidden call", "write a plain method"),
    Rule("S208", "computed metaclass", "{} is not a class by its name", "write metaclass=ABCMeta, or no metaclass"),
    Rule("S209", "class made by a call", "{} makes a class by a call", "write a class statement or a dataclass"),
    Rule("S210", "name that the pool denies", "{} is denied by this pool", "do without it"),
    Rule("S301", "attribute of the interpreter's own", "the attribute {} belongs to the interpreter", _NOTHING_HIDDEN),
    Rule(
        "S302", "frame or code object", "the attribute {} reaches frames or code", "do without frames and code objects"
    ),
    Rule("S303", "underscored attribute", "{} is private", f"use the public interface, or {_ALLOW_NAME}"),
    Rule("S304", "module behind a module", "{} reaches what the module was not imported for", _COMPUTE),
    Rule("S305", "files or pickles of a library", "{} reads or writes files or pickles", _EXCHANGE),
    Rule("S306", "object of an error", "{} takes the object out of an error", "catch the error and use your own names"),
    Rule("S401", "attribute in a format string", "the format string reaches {}", "format the value itself"),
    Rule(
        "S402", "interpreter's name in a string", "the text {} names what belongs to the interpreter", _NOTHING_HIDDEN
    ),
    Rule(
        "S403",
        "attribute in an expression string",
        "the expression {} reaches attributes",
        "use @name of a plain value",
    ),
    Rule("S404", "code in an annotation", "the annotation {} has code in it", "name a type"),
    Rule("S405", "address in the network", "{} is in the network, and there is none here", _EXCHANGE),
    Rule("S501", "too long", "the code has {} bytes, over 262144", "pass what is not code as arguments"),
    Rule("S502", "too deep", "the code is nested too deeply for the parser", "split long expressions; use a list"),
    Rule("S503", "not text", "the code has {}", "save it as UTF-8 text"),
    Rule("S504", "misleading encoding", "the code claims the encoding {}, and is read as UTF-8", "remove the comment"),
    Rule("S505", "text that reads otherwise than it runs", "the code has the control character {}", "write an escape"),
)

RULES = {rule.id: rule for rule in _ALL}


def table() -> str:
    """The rules as a table in Markdown; docs/screen.md holds it."""
    rows = [f"| {rule.id} | {rule.title} | {rule.reason.replace('{}', '…')} | {rule.remedy} |" for rule in _ALL]
    return "\n".join(["| rule | against | reason | instead |", "|---|---|---|---|", *rows])
