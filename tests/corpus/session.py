"""The whole run, in order: which programs, what a plain process makes of them, twice the pool, what differs and why.

cases ─▶ Reference.look ─────────────────────────────┐
  └────▶ by_threads ─▶ by_batches ─▶ differences ◀───┴── those that differ once more in the plain process
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial

from tests.corpus import codeio, compare, humaneval, pyperformance
from tests.corpus.case import Case, share_of
from tests.corpus.compare import Difference
from tests.corpus.memory import Watch
from tests.corpus.poolrun import Round, by_batches, by_threads
from tests.corpus.progress import progress
from tests.corpus.reference import Reference, Witness
from tests.support.daemons import DaemonProcess

PRELOAD = ["numpy", "pandas"]
#: A tag of its own, so that whoever builds the usual one meanwhile changes nothing here.
IMAGE = "pool-worker-corpus:latest"
TEMPLATE = {
    "image": IMAGE,
    "size": {"min": 2, "max": 2},
    "recycle": {"max_jobs": 1_000_000},
    "preload": {"modules": PRELOAD},
    "screen": "off",
    "isolation": "auto",
}
#: Results are fetched at once. With the defaults the daemon would keep ten minutes of them, which is no leak but growth.
KEPT = {"result_ttl_s": 5, "result_bytes": "8m", "log_level": "info"}
#: One that draws five times one of two numbers is the same as before once in 32 times.
_AGAIN = 6


@dataclass(slots=True)
class Findings:
    """All findings of the run."""

    cases: list[Case]
    left_out: dict[str, str]  #: programs of pyperformance, and why
    witnesses: list[Witness] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    memory: Watch | None = None

    def unexplained(self) -> list[Difference]:
        return [each for each in self.differences if each.cause is compare.Cause.UNEXPLAINED]


def run(share: float) -> Findings:
    with Reference(IMAGE) as reference:
        findings = _programs(reference, share)
        findings.witnesses = _look(reference, findings.cases, "in a plain process each")
        _pool(findings)
        _judge(reference, findings)
    return findings


def _programs(reference: Reference, share: float) -> Findings:
    programs, problems = share_of(codeio.load(), share), humaneval.load()
    problems = problems[:: max(1, round(1 / share))]
    benchmarks, left_out = pyperformance.load()
    canonical = [problem.canonical() for problem in problems]
    broken = humaneval.broken(problems, partial(_seen, reference))
    return Findings([*programs, *canonical, *broken, *share_of(benchmarks, share)], left_out)


def _seen(reference: Reference, cases: Sequence[Case], wall_s: float) -> list:
    return [witness.seen for witness in reference.look(cases, wall_s=wall_s)]


def _look(reference: Reference, cases: Sequence[Case], title: str, *, preload: Sequence[str] = ()) -> list[Witness]:
    """Programs of pyperformance one at a time: two of them take the same port."""
    if not cases:
        return []
    alone = {at for at, case in enumerate(cases) if case.part == pyperformance.PART}
    found: dict[int, Witness] = {}
    with progress(title, len(cases)) as ended:
        for slots, places in ((2, sorted(set(range(len(cases))) - alone)), (1, sorted(alone))):
            if places:
                seen = reference.look([cases[at] for at in places], slots=slots, preload=preload, ended=ended)
                found |= dict(zip(places, seen, strict=True))
    return [found[at] for at in range(len(cases))]


def _pool(findings: Findings) -> None:
    cases = findings.cases
    with (
        DaemonProcess({"default": TEMPLATE}, engine="docker", **KEPT) as daemon,
        daemon.client(timeout=120) as client,
        Watch(daemon.process.pid) as findings.memory,
    ):
        for title, way in (("in the pool", by_threads), ("in the pool again", by_batches)):
            with progress(title, len(cases)) as ended:
                findings.rounds.append(way(client, cases, partial(_ended, findings.memory, ended)))


def _ended(watch: Watch, ended: Callable[[], None]) -> None:
    watch.job()
    ended()


def _judge(reference: Reference, findings: Findings) -> None:
    """What differs runs again in the plain process, to see whether it differs from itself; and once with the preloads."""
    suspects = [at for at in range(len(findings.cases)) if _differences(findings, at, [], None)]
    cases = [findings.cases[at] for at in suspects]
    runs = [_look(reference, cases, "what differs, in a plain process again") for _ in range(_AGAIN)]
    preloaded = _look(reference, cases, "what differs, with the preloads", preload=PRELOAD)
    again = {at: [run[number] for run in runs] for number, at in enumerate(suspects)}
    unsteady = _unsteady(findings, again)
    for at, other in zip(suspects, preloaded, strict=True):
        findings.differences += _differences(findings, at, again[at], other, unsteady=unsteady[findings.cases[at].code])


def _unsteady(findings: Findings, again: Mapping[int, Sequence[Witness]]) -> Mapping[str, set[str]]:
    """For each program, the fields in which it has not repeated itself in the plain process, with whatever seed."""
    found: dict[str, set[str]] = defaultdict(set)
    for at, others in again.items():
        found[findings.cases[at].code] |= compare.differs_from_itself([findings.witnesses[at], *others])
    return found


def _differences(
    findings: Findings,
    at: int,
    again: Sequence[Witness],
    preloaded: Witness | None,
    *,
    unsteady: AbstractSet[str] = frozenset(),
) -> list[Difference]:
    case, witness = findings.cases[at], findings.witnesses[at]
    one, two = (each.answers[at] for each in findings.rounds)
    found = (
        compare.between(case, one, witness, again, preloaded, unsteady=unsteady),
        compare.of_rounds(case, one, two, [witness, *again], unsteady=unsteady),
    )
    return [each for each in found if each is not None]


@contextlib.contextmanager
def visible(config):
    """Output of the run goes to the terminal: it takes many minutes."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        yield
