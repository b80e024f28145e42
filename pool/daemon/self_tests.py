"""The tests that a worker must pass before its first job: the right sources, a right value, a lockdown that holds.

    Hello    the digest of its runner's sources is that of this daemon's own
    Ready    the level of isolation, and which parts of it this host refuses
    lockdown a job through the whole path, which tries to break out (probe_inside.py, sent as text), fails with every
             attempt, and returns the right value
    no-op    in its place where there is no lockdown: a job that returns the right value

A failure ends the start of the worker with a reason. It is permanent if another start cannot succeed either; that opens
the pool's breaker at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pool import values, wire
from pool._version import __version__
from pool.errors import RemoteProtocolError, ValueCodecError
from pool.model import Outcome
from pool.printable import visible
from pool.status import ProbeRow

NOOP_ID = "noop"
PROBE_ID = "lockdown-probe"
_NOOP_CODE = b"def main(x):\n    return [x, x + 1]\n"
_ARGUMENT, _VALUE = 41, [41, 42]
_NOOP_BYTES = 4096
_PROBE_CODE = Path(__file__).with_name("probe_inside.py")
_PROBE_BYTES = 64 * 1024
_PROBE_ROWS = 100
HELD, BROKEN, SKIPPED = "held", "broken", "skipped"
#: Characters of stderr, or of the error, that are shown of a self-test that failed.
_ERROR_CHARS = 500


class StartFailed(Exception):  # noqa: N818 - the name of an event, as in the core
    """The worker cannot be used."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(visible(reason))
        self.permanent = permanent


class SelfTest(NamedTuple):
    """A job of the daemon's own. `judge` raises StartFailed for a wrong answer."""

    run: wire.Run
    payload: list[wire.Frame]
    judge: Callable[[Sequence[wire.Frame]], None]


@dataclass(slots=True, kw_only=True)
class StartCheck:
    """The checks of one worker's start, and their results. WorkerProtocol decides about their order."""

    sources: str  #: the digest that the runner must have
    limits: dict[str, Any]  #: of the self-tests: the template's defaults
    allow: tuple[str, ...] = ()  #: what jobs may do besides computing, as in the template
    verified: bool = True  #: whether the worker must prove its lockdown; False for an engine that has none
    isolation: str = ""
    missing: tuple[str, ...] = ()
    boot_ms: float = 0.0
    rows: tuple[ProbeRow, ...] = ()  #: of the lockdown probe
    _tests: list[SelfTest] = field(default_factory=list)

    @property
    def test(self) -> SelfTest | None:
        """The self-test that runs or comes next; None when all have passed."""
        return self._tests[0] if self._tests else None

    @property
    def lockdown(self) -> str:
        """One word for the status: none | unproven | broken | degraded | verified."""
        if not self.verified:
            return "none"
        if not self.rows:
            return "unproven"
        if broken(self.rows):
            return "broken"
        return "degraded" if self.missing else "verified"

    def restore(self, isolation: str, missing: tuple[str, ...], rows: tuple[ProbeRow, ...]) -> None:
        """The results of an earlier daemon, for a worker that is adopted."""
        self.isolation, self.missing, self.rows = isolation, missing, rows

    def check_hello(self, hello: wire.Hello) -> None:
        if hello.sources != self.sources:
            raise StartFailed(
                f"the image holds runner {hello.runner}, sources {hello.sources[:12]}; this daemon is {__version__} "
                f"and needs {self.sources[:12]}; run: pool-admin image build, then: pool-admin resume",
                permanent=True,
            )

    def take_ready(self, ready: wire.Ready) -> None:
        """Note the isolation, and prepare the self-test, which depends on it."""
        self.isolation, self.missing, self.boot_ms = ready.isolation, ready.missing, ready.boot_ms
        if self.verified:
            probe = lockdown_probe(self.limits, missing=self.missing, allow=self.allow)
            self._tests.append(SelfTest(*probe, self._judge_lockdown))
        else:
            self._tests.append(SelfTest(*_noop(self.limits), _judge_noop))

    def check_done(self, done: wire.Done, payload: Sequence[wire.Frame]) -> None:
        """The only payloads that the daemon decodes: the answers to its own self-tests, which are small."""
        test = self._tests.pop(0)
        if done.outcome is not Outcome.OK:
            details = f"{done.reason} {_error_of(payload)}".strip()
            raise StartFailed(f"its {test.run.job_id} job ended {done.outcome}: {details}")
        test.judge(payload)

    def check_freed(self, freed: wire.Freed) -> None:
        if freed.residue:
            raise StartFailed(f"a self-test left something behind: {freed.residue}")

    def _judge_lockdown(self, payload: Sequence[wire.Frame]) -> None:
        try:
            self.rows = probe_rows(payload)
        except RemoteProtocolError as error:
            raise StartFailed(str(error), permanent=True) from None
        if broken_rows := broken(self.rows):
            raise StartFailed(f"its lockdown does not hold: {broken_rows}; see pool-admin doctor", permanent=True)


def _error_of(payload: Sequence[wire.Frame]) -> str:
    """The stderr of a failed self-test, or else its exception."""
    if len(payload) < 3:
        return ""
    if stderr := bytes(payload[1][:_ERROR_CHARS]).decode(errors="replace"):
        return stderr
    try:
        fault = wire.decode_fault(payload[2])
    except RemoteProtocolError:
        return ""
    return f"{fault.type}: {fault.message}"[:_ERROR_CHARS]


# ---- the no-op job ----


def _noop(limits: dict[str, Any]) -> tuple[wire.Run, list[wire.Frame]]:
    arguments = values.encode(((_ARGUMENT,), {}), max_bytes=_NOOP_BYTES)
    return wire.Run(job_id=NOOP_ID, epoch=0, entry="main", screened=False, **limits), [_NOOP_CODE, b"", *arguments]


def _judge_noop(payload: Sequence[wire.Frame]) -> None:
    if _size(payload) > _NOOP_BYTES:
        raise StartFailed("the answer of its no-op job is too large")
    try:
        value = values.decode(payload[3:])
    except ValueCodecError as error:
        raise StartFailed(f"its no-op job returned no value: {error}") from None
    _judge_value(value)


def _judge_value(value: object) -> None:
    if value != _VALUE:
        raise StartFailed("its self-test returned a wrong value")


def _size(payload: Sequence[wire.Frame]) -> int:
    return sum(map(len, payload))


# ---- the lockdown probe ----


def lockdown_probe(
    limits: dict[str, Any], *, missing: Sequence[str], allow: Sequence[str]
) -> tuple[wire.Run, list[wire.Frame]]:
    """A job that tries to break out. It skips the attempts that the `missing` parts of the isolation would stop."""
    arguments = (_ARGUMENT, list(missing), list(allow), limits["processes"], limits["memory"], limits["tmp"])
    frames = values.encode((arguments, {}), max_bytes=_PROBE_BYTES)
    run = wire.Run(job_id=PROBE_ID, epoch=0, entry="main", screened=False, **limits)
    return run, [_PROBE_CODE.read_bytes(), b"", *frames]


def probe_rows(payload: Sequence[wire.Frame]) -> tuple[ProbeRow, ...]:
    """The table in the probe's answer. It comes from a sandbox that has proved nothing yet, so its size and types are
    checked. Raises RemoteProtocolError for anything but a table, and StartFailed for a wrong value before it.
    """
    if _size(payload) > _PROBE_BYTES:
        raise RemoteProtocolError("the table of the lockdown probe is too large")
    try:
        found = values.decode(payload[3:])
    except ValueCodecError as error:
        raise RemoteProtocolError(f"the lockdown probe returned no table: {error}") from None
    if not isinstance(found, list) or len(found) != 2 or not _is_table(found[1]):
        raise RemoteProtocolError("the lockdown probe returned a value that is no table")
    value, rows = found
    _judge_value(value)
    return tuple(ProbeRow(probe=_bounded(name), verdict=verdict, seen=_bounded(seen)) for name, verdict, seen in rows)


def _is_table(found: object) -> bool:
    return isinstance(found, list) and 0 < len(found) <= _PROBE_ROWS and all(map(_is_row, found))


def _is_row(row: object) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 3
        and all(isinstance(each, str) for each in row)
        and row[1] in (HELD, BROKEN, SKIPPED)
    )


def _bounded(text: str) -> str:
    return visible(text[:200])[:200]


def broken(rows: Sequence[ProbeRow]) -> str:
    """The attempts that succeeded, as text; "" if none did."""
    return "; ".join(f"{row.probe} ({row.seen})" for row in rows if row.verdict == BROKEN)
