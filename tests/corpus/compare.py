"""The differences between the pool and the plain process, each with its cause. One without a cause fails the run.

The causes are tried in this order. The first is proven: the plain process has run the program again, and it differed
from itself in every field in question. The pool's preloads are proven too, by a plain process that has them.
"""

import ast
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum

from tests.corpus.case import Case
from tests.corpus.poolrun import Answer
from tests.corpus.reference import Witness
from tests.corpus.seen import Seen, brief

_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
#: Names by which a program reads a clock, or random numbers that no seed sets.
_CLOCKS = {"time", "now", "today", "utcnow", "perf_counter", "monotonic", "process_time", "time_ns", "timeit"}
_RANDOM = {"uuid4", "uuid1", "urandom", "SystemRandom", "secrets", "default_rng", "seed", "RandomState"}
_THREADS = {"Thread", "ThreadPoolExecutor", "ThreadPool"}
#: What the pool's sandbox denies ends as one of these in the program.
_DENIED = ("PermissionError", "FileNotFoundError", "OSError", "BlockingIOError")


class Cause(StrEnum):
    CLOCK = "reads a clock; differs from itself"
    ADDRESS = "prints an address; differs from itself"
    RANDOM = "draws numbers that no seed sets; differs from itself"
    ITSELF = "differs from itself"
    THREADS = "its threads print in the order in which they come to run"
    PRELOADED = "a module that it hides or changes is loaded already: the same in a plain process with the preloads"
    LIMIT = "a limit of the template"
    NOT_CARRIED = "its value is of a type that the pool does not carry"
    ISOLATION = "what the sandbox denies"
    UNEXPLAINED = "UNEXPLAINED"


@dataclass(frozen=True, slots=True)
class Difference:
    case: Case
    fields: tuple[str, ...]
    cause: Cause
    about: str  #: which limit, type or denial; or what was seen
    between: str = "pool and plain process"


def between(
    case: Case,
    answer: Answer,
    witness: Witness,
    again: Sequence[Witness],
    preloaded: Witness | None = None,
    *,
    unsteady: AbstractSet[str] = frozenset(),
) -> Difference | None:
    """`again`: further runs in the plain process, `preloaded`: one with the template's modules imported before it.

    They are needed only if there is a difference. `unsteady`: the fields in which the same program did not repeat itself
    in the plain process with another seed.
    """
    if witness.foreign and answer.seen.outcome == "error" and answer.seen.type == "pool.errors.ValueCodecError":
        return Difference(case, ("outcome",), Cause.NOT_CARRIED, witness.foreign)
    differing = answer.seen.differences(witness.seen)
    if not differing:
        return None
    cause, about = _cause(case, answer, witness, unsteady | differs_from_itself([witness, *again]), differing)
    if cause is Cause.UNEXPLAINED and preloaded is not None and not answer.seen.differences(preloaded.seen):
        cause, about = Cause.PRELOADED, ""
    return Difference(case, differing, cause, about)


def of_rounds(
    case: Case, one: Answer, two: Answer, witnesses: Sequence[Witness], *, unsteady: AbstractSet[str] = frozenset()
) -> Difference | None:
    """Of two runs in the pool; only what differs from itself in a plain process may do so here."""
    differing = one.seen.differences(two.seen)
    if not differing:
        return None
    cause = Cause.UNEXPLAINED
    if set(differing) <= unsteady | differs_from_itself(witnesses):
        cause = _of_itself(case, one.seen, two.seen, differing)
    elif _threads(case, one.seen, two.seen, differing):
        cause = Cause.THREADS
    about = "" if cause is not Cause.UNEXPLAINED else f"{brief(one.seen, differing)} then {brief(two.seen, differing)}"
    return Difference(case, differing, cause, about, "first and second run in the pool")


def differs_from_itself(witnesses: Sequence[Witness]) -> set[str]:
    """The fields in which the plain process does not repeat itself."""
    first, *others = witnesses
    return {name for other in others for name in first.seen.differences(other.seen)}


def _cause(
    case: Case, answer: Answer, witness: Witness, unsteady: AbstractSet[str], differing: tuple[str, ...]
) -> tuple[Cause, str]:
    if set(differing) <= unsteady:
        return _of_itself(case, answer.seen, witness.seen, differing), ""
    if _threads(case, answer.seen, witness.seen, differing):
        return Cause.THREADS, ""
    if answer.seen.outcome in {"memory", "timeout", "output"}:
        return Cause.LIMIT, answer.seen.outcome
    if answer.truncated and set(differing) <= set(answer.truncated):
        return Cause.LIMIT, "output"
    if denial := _denial(answer.seen, witness.seen):
        return Cause.ISOLATION, denial
    return Cause.UNEXPLAINED, f"pool {brief(answer.seen, differing)}; plain {brief(witness.seen, differing)}"


def _threads(case: Case, one: Seen, two: Seen, differing: tuple[str, ...]) -> bool:
    """The same lines in another order, from a program with threads."""
    lines = [[sorted(getattr(seen, name).splitlines()) for name in ("stdout", "stderr")] for seen in (one, two)]
    return set(differing) <= {"stdout", "stderr"} and lines[0] == lines[1] and bool(_names(case.code) & _THREADS)


def _denial(pool: Seen, plain: Seen) -> str:
    """The error of the system with which the program ended in the pool only."""
    denied = pool.outcome == "error" and pool.type.rpartition(".")[2] in _DENIED
    return f"{pool.type}: {pool.message}"[:120] if denied and plain != pool else ""


def _of_itself(case: Case, one: Seen, two: Seen, differing: tuple[str, ...]) -> Cause:
    """The most likely cause, from the fields that differ and from the names in the program."""
    texts = [[_ADDRESS.sub("", str(getattr(seen, name))) for name in differing] for seen in (one, two)]
    if texts[0] == texts[1]:
        return Cause.ADDRESS
    names = _names(case.code)
    if names & _CLOCKS:
        return Cause.CLOCK
    return Cause.RANDOM if names & _RANDOM else Cause.ITSELF


def _names(code: str) -> set[str]:
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, RecursionError):
        return set()
    return {node.id for node in nodes if isinstance(node, ast.Name)} | {
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    }
