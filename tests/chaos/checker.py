"""What a history must show, checked when all is over. It reads the records only, and needs no daemon.

1. Each acknowledged job has exactly one end, and whoever asks again is told the same.
2. No job ran more than once; one that ended ok ran exactly once. The witness has counted.
3. No result came under another id: the value of a job is its own.
4. A job that ended otherwise than its program does alone ended `lost` or `timeout`.
5. Nothing is left: container, process, mount, directory, descriptor.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pool.model import Outcome
from tests.chaos.programs import BY_KIND, nonce_of

#: The end of a job whose worker was hit by a fault. A frozen worker is killed at the job's deadline.
STRUCK = {Outcome.LOST, Outcome.TIMEOUT}


@dataclass
class Verdict:
    jobs: int = 0  #: submitted
    acknowledged: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    executions: int = 0
    violations: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        yield f"jobs       {self.jobs} submitted, {self.acknowledged} acknowledged, {self.executions} executions seen"
        yield f"outcomes   {_counts(self.outcomes)}"
        yield f"faults     {sum(self.faults.values())}: {_counts(self.faults)}"
        yield f"violations {len(self.violations)}"
        yield from (f"    {each}" for each in self.violations[:50])


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"


def check(records: Iterable[dict], seen: Counter[str], *, complete: bool = True) -> Verdict:
    """`seen`: executions by nonce. `complete`: the witness has missed none."""
    verdict = Verdict(executions=sum(seen.values()))
    jobs: dict[str, list[dict]] = defaultdict(list)
    for record in records:
        if "id" in record:
            jobs[record["id"]].append(record)
        elif record["what"] == "fault":
            verdict.faults[record["fault"]] += 1
        elif record["what"] == "left":
            verdict.violations.append(f"left behind: {record['thing']}")
    for job_id, about in jobs.items():
        verdict.violations += _violations(job_id, about, seen[nonce_of(job_id)], verdict, complete=complete)
    known = {nonce_of(job_id) for job_id in jobs}
    verdict.violations += [f"execution of a job that nobody submitted: {nonce}" for nonce in seen if nonce not in known]
    if not complete:
        verdict.violations.append("the witness was not told of all executions; run fewer jobs at a time")
    return verdict


def _violations(job_id: str, about: list[dict], runs: int, verdict: Verdict, *, complete: bool) -> Iterator[str]:
    kind = BY_KIND[next(each["kind"] for each in about if each["what"] == "submit")]
    acknowledged = any(each["what"] == "acknowledged" for each in about)
    ends = [each for each in about if each["what"] == "end"]
    verdict.jobs += 1
    verdict.acknowledged += acknowledged
    if runs > 1:
        yield f"{job_id} ({kind.kind}) was executed {runs} times"
    yield from (f"{job_id}: {each['why']}" for each in about if each["what"] == "failed")
    if not ends:
        if acknowledged:
            yield f"{job_id} was acknowledged and has no end"
        elif runs:
            yield f"{job_id} was refused and executed"
        return
    first = ends[0]
    verdict.outcomes[first["outcome"]] += 1
    yield from (
        f"{job_id} ended {first['outcome']} and then {each['outcome']}"
        for each in ends[1:]
        if (each["outcome"], each.get("value")) != (first["outcome"], first.get("value"))
    )
    if first["outcome"] in ("unknown", "unanswered"):
        if acknowledged or first["outcome"] == "unanswered":
            yield f"{job_id} was {'acknowledged' if acknowledged else 'sent'} and is {first['outcome']}"
        elif runs:
            yield f"{job_id} was never accepted and executed"
        return
    yield from _wrong_end(job_id, first, kind.outcome, runs, complete=complete)


def _wrong_end(job_id: str, end: dict, expected: Outcome, runs: int, *, complete: bool) -> Iterator[str]:
    outcome = end["outcome"]
    if outcome != expected and outcome not in STRUCK:
        yield f"{job_id} ended {outcome} ({end.get('reason')}) instead of {expected}"
    if outcome == Outcome.OK and end.get("value") != nonce_of(job_id):
        yield f"{job_id} has the value {end.get('value')!r}, which is not its own"
    if outcome in (Outcome.OK, Outcome.ERROR) and runs == 0 and complete:
        yield f"{job_id} ended {outcome} and was never executed"
