"""`run_tests`: one candidate against many cases, each in a child of its own, judged here and not in the candidate's
process.

    cases ──▶ chunks whose calls run apart ──results in order──▶ judge ──▶ CaseResults ──▶ TestReport
          └─▶ a job for each case that has a check, or files, argv or limits of its own

A case gives arguments or stdin, and what is expected: a value, an output, or a `check`, which grades the value in
another child (see `JobOptions.grade`) and passes if it returns True. The candidate never sees what is expected, and a
case sees nothing of another one.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from pool import values, wire
from pool.client import checks
from pool.client.batch import Batches, BatchJob, Map
from pool.client.checks import Buffer
from pool.client.chunks import MAX_BYTES, Chunk
from pool.client.job import arguments_of, program_of, stdin_of
from pool.client.options import Code, JobOptions
from pool.client.retry import Retry
from pool.client.window import Answer, Counter
from pool.errors import InvalidJobError, JobRefusedError, ResultTimeoutError, ValueCodecError
from pool.model import JobResult, Limits, Outcome

#: Chunks and jobs under way ahead of the case that is judged; fewer where the first failure ends the run.
WINDOW, WINDOW_TO_STOP = 128, 4
#: Cases in one chunk; with more, the daemon's and the client's part of the cost is small already.
MOST_CASES, MOST_CASES_TO_STOP = 8, 4
#: Chunks are smaller if there would be fewer than this, so that every worker of a pool gets some.
LEAST_CHUNKS = 16
#: A case with one of these is a job of its own.
_OWN = {"check", "files", "argv", "limits"}
#: Options of `run_tests` that are sent with each case of a chunk.
_WITH_A_CALL = {"kwargs", "stdin"}
_INPUTS = ("args", "kwargs", "stdin", "argv", "files", "limits")
_EXPECTED = ("expected", "stdout", "check")
_KEYS = {"name", "check_args", *_INPUTS, *_EXPECTED}
_MOST_SHOWN = 200


class Case(TypedDict, total=False):
    """A test of a candidate. It has at least one of `expected`, `stdout` and `check`, and passes if all of them do."""

    name: str  #: for the report
    args: Sequence[object]
    kwargs: Mapping[str, object]
    stdin: Buffer | str
    argv: Sequence[str]
    files: Mapping[str, Buffer]
    limits: Limits  #: in place of those of the call
    expected: object  #: the value: equal by `==`, or of the same bytes (arrays, frames, nan)
    stdout: str  #: the output, but for white space at the ends of lines and at the end
    check: Code  #: source text with a function `check(value, *check_args)`, or a callable; passes if it returns True
    check_args: Sequence[object]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """How one case ended. `job`: the candidate's job; None if it was not judged, and `reason` says why."""

    name: str
    passed: bool
    reason: str = ""  #: why it did not pass, in a sentence
    job: JobResult | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestReport:
    """One row for each case, in the order of the cases."""

    __test__ = False  # it is not a class of tests

    cases: tuple[CaseResult, ...]

    @property
    def passed(self) -> int:
        """How many cases have passed."""
        return sum(case.passed for case in self.cases)

    @property
    def ok(self) -> bool:
        """Whether all have passed."""
        return self.passed == len(self.cases)

    @property
    def first_failure(self) -> CaseResult | None:
        return next((case for case in self.cases if not case.passed), None)


class TestRun:
    """The cases of one candidate: the jobs that they are, and the rows of those that have ended."""

    __test__ = False

    def __init__(
        self, batches: Batches, code: Code, cases: Iterable[Case], options: JobOptions, *, stop_on_first_failure: bool
    ) -> None:
        """Raises InvalidJobError without cases, and for a case that no candidate could pass, which it names."""
        if shared := {"args", "job_id", "grade", "grade_args"} & options.keys():
            raise checks.invalid(min(shared), "it cannot be shared by all cases", "put it into the cases")
        self._cases = [_checked(f"cases[{number}]", case) for number, case in enumerate(cases)]
        if not self._cases:  # otherwise every candidate would pass
            raise checks.invalid("cases", "there are none", "give at least one; an iterator can be used only once")
        self._stop = checks.flag("stop_on_first_failure", stop_on_first_failure)
        self._program = program_of(code, options.pop("entry", None), options.pop("strip_fences", None))
        self._options = options
        self._batches = batches
        self._rows: list[CaseResult] = []
        self._left = ""

    def jobs(self, retry: Retry[Answer]) -> Map:
        """The jobs of all cases, in order."""
        width = WINDOW_TO_STOP if self._stop else WINDOW
        shared: Any = {name: value for name, value in self._options.items() if name not in _WITH_A_CALL}
        counter = Counter(None, ())
        return self._batches.parts(self._program, self._parts(), shared, retry=retry, width=width, counter=counter)

    def add(self, result: JobResult) -> bool:
        """Judge the next case. False: no more are wanted."""
        case = self._cases[len(self._rows)]
        reason = judge(case, result)
        self._rows.append(CaseResult(name=self._name(), passed=not reason, reason=reason, job=result))
        if self._stop and reason:
            self._left = f"not judged, for {self._rows[-1].name} did not pass"
        return not self._left

    def out_of_time(self, error: ResultTimeoutError) -> None:
        self._left = f"not judged in time: {error.message}"

    def report(self) -> TestReport:
        while len(self._rows) < len(self._cases):
            self._rows.append(CaseResult(name=self._name(), passed=False, reason=self._left))
        return TestReport(cases=tuple(self._rows))

    def _name(self) -> str:
        """Of the next case."""
        number = len(self._rows)
        return self._cases[number].get("name", f"case {number}")

    def _parts(self) -> Iterator[Chunk | BatchJob]:
        """Neighbouring cases share a chunk."""
        most = MOST_CASES_TO_STOP if self._stop else MOST_CASES
        size = max(1, min(most, len(self._cases) // LEAST_CHUNKS))
        calls: list[Sequence[bytes] | JobRefusedError] = []
        for case in self._cases:
            own = size == 1 or not _OWN.isdisjoint(case)
            if calls and (own or len(calls) == size or _is_large(calls)):
                yield Chunk(calls, apart=True)
                calls = []
            if own:
                yield self._job(case)
            else:
                calls.append(self._call(case))
        if calls:
            yield Chunk(calls, apart=True)

    def _call(self, case: Case) -> Sequence[bytes] | JobRefusedError:
        """Its stdin and its arguments, or the reason why they cannot be sent."""
        given: dict[str, Any] = {**self._options, **case}
        try:
            stdin = stdin_of(given.get("stdin") or b"")
            arguments = arguments_of(self._program, given.get("args", ()), given.get("kwargs"))
        except JobRefusedError as error:
            return error
        return [bytes(each) for each in (stdin, *arguments)]

    def _job(self, case: Case) -> BatchJob:
        own: dict[str, Any] = {name: case[name] for name in _INPUTS if name in case}  # type: ignore[literal-required]
        if "check" in case:
            own |= {"grade": _grader(case["check"]), "grade_args": case.get("check_args", ())}
        return {**self._options, **own, "code": self._program}  # type: ignore[typeddict-item]


def collect(run: TestRun, results: Iterator[JobResult]) -> TestReport:
    """Judge the results as they come. Cases that are not needed any more are cancelled when the iteration ends."""
    try:
        for result in results:
            if not run.add(result):
                break
    except ResultTimeoutError as error:
        run.out_of_time(error)
    finally:
        results.close()  # type: ignore[attr-defined] # a generator
    return run.report()


# ---- a case ----


def _is_large(calls: Sequence[Sequence[bytes] | JobRefusedError]) -> bool:
    return sum(len(frame) for call in calls if not isinstance(call, JobRefusedError) for frame in call) > MAX_BYTES


def _checked(field: str, case: object) -> Case:
    if not isinstance(case, Mapping):
        remedy = "give a mapping, such as {'args': [2], 'expected': 4}"
        raise checks.invalid(field, f"it is {checks.kind(case)}", remedy)
    if unknown := case.keys() - _KEYS:
        problem = f"a case has no {min(map(str, unknown))!r:.40}"
        raise checks.invalid(field, problem, f"it has {', '.join(sorted(_KEYS))}")
    if not case.keys() & set(_EXPECTED):
        raise checks.invalid(field, "nothing is expected of it", f"give one of {', '.join(_EXPECTED)}")
    if not isinstance(case.get("args", ()), (list, tuple)):
        raise checks.invalid(
            f"{field}.args", f"it is {checks.kind(case['args'])}", "give a list or tuple, such as [21]"
        )
    checks.mapping(f"{field}.kwargs", case.get("kwargs") or {}, wire.MAX_FRAMES)
    if "stdout" in case:
        checks.text(f"{field}.stdout", case["stdout"])
    if "expected" in case:
        try:
            _frames(case["expected"])
        except ValueCodecError as error:
            raise InvalidJobError(f"{field}.expected: no value can be equal to it: {error.message}") from error
    try:
        if "check" in case:
            _grader(case["check"])
    except JobRefusedError as error:
        raise InvalidJobError(f"{field}.check: {error.message}") from error
    return case  # type: ignore[return-value]


def _grader(check: Code) -> Any:
    return program_of(check, "check" if isinstance(check, str) else None)


def judge(case: Case, result: JobResult) -> str:
    """Why the case has not passed; "" if it has."""
    if result.outcome is not Outcome.OK:
        return f"the candidate ended {result.outcome}: {_short(result.explanation)}"
    if "stdout" in case and ("stdout" in result.truncated or _bare(result.stdout) != _bare(case["stdout"])):
        return f"it printed {_short(result.stdout)!r}, expected is {_short(case['stdout'])!r}"
    if "expected" in case and not same(result.value, case["expected"]):
        return f"its value is {_shown(result.value)}, expected is {_shown(case['expected'])}"
    if "check" in case:
        if result.grade_error is not None:
            return f"its check failed: {_short(f'{result.grade_error.type}: {result.grade_error.message}')}"
        if not _is_true(result.grade):
            return f"its check returned {_shown(result.grade)}"
    return ""


def same(value: object, expected: object) -> bool:
    """Equal by `==`, such as 1 and 1.0, or of the same bytes, such as arrays, frames and nan."""
    try:
        if _frames(value) == _frames(expected):
            return True
    except ValueCodecError:
        return False
    try:
        return _is_true(value == expected)
    except Exception:  # noqa: BLE001 - arrays inside, which have no truth value
        return False


def _is_true(value: object) -> bool:
    """Comparisons of NumPy's numbers give its own kind of bool."""
    numpy = sys.modules.get("numpy")
    return value is True or (numpy is not None and isinstance(value, numpy.bool_) and bool(value))


def _frames(value: object) -> list[bytes | memoryview]:
    return values.encode(value, max_bytes=wire.MAX_JOB_BYTES)


def _bare(text: str) -> str:
    """Without white space at the ends of lines. No regular expression: for one, a long row of spaces takes hours."""
    return "\n".join([line.rstrip() for line in text.split("\n")]).rstrip()


def _shown(value: object) -> str:
    try:
        return _short(reprlib.repr(value))
    except ValueError as error:  # an int with more digits than Python writes
        return f"<{type(value).__name__}: {error}>"


def _short(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
