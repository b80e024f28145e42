"""Functional checks of the sandbox: small programs, and the outcome that each must have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pool.client.sandbox import ExecutionResult, SandboxExecutor
from pool.model import Outcome


@dataclass(frozen=True, slots=True)
class Check:
    what: str
    passed: bool
    seen: str = ""  #: what happened, if it did not pass


_FORGING = "import math\ndef grade(*_): return 99.0\nmath.fsum = grade\ndef main(): return [1, 2]"
_GRADER = "import math\ndef grade(value, expected): return float(math.fsum(value) == expected)"
#: Connecting a datagram socket sends nothing. It shows whether there is a route to the address.
_CONNECTS = "import socket\ndef main(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))"
_WRITES = "def main(): open('/etc/passwd', 'a')"

Judge = Callable[[ExecutionResult], bool]


def _ended(*outcomes: Outcome) -> Judge:
    return lambda found: found.outcome in outcomes


def _blocked(found: ExecutionResult) -> bool:
    """Refused by the screen, or by the sandbox."""
    return found.outcome in {Outcome.ERROR, Outcome.REJECTED, Outcome.CRASH}


_CHECKS: tuple[tuple[str, str, dict[str, Any], Judge], ...] = (
    ("a value comes back", "def main(): return {'x': [1, 2.5]}", {}, lambda found: found.value == {"x": [1, 2.5]}),
    ("an exception names its line", "def main():\n    return {}['k']", {}, lambda found: "line 2" in found.error),
    ("a syntax error is a result", "def main(:", {}, _ended(Outcome.ERROR, Outcome.REJECTED)),
    ("a timeout ends an endless loop", "def main():\n    while True: pass", {"timeout": 0.5}, _ended(Outcome.TIMEOUT)),
    ("memory is limited", "def main(): return len(bytearray(1 << 40))", {}, _ended(Outcome.MEMORY, Outcome.ERROR)),
    ("no network is reached", _CONNECTS, {"timeout": 10}, _blocked),
    ("no file of the system is written", _WRITES, {}, _blocked),
    (
        "a candidate cannot forge its grade",
        _FORGING,
        {"grade": _GRADER, "grade_args": [3]},
        lambda found: found.job is not None and found.job.grade == 1.0,
    ),
    ("the next job runs as if nothing had been", "def main(): return sum([1, 2])", {}, lambda found: found.value == 3),
)


def run(sandbox: SandboxExecutor) -> list[Check]:
    """Run the checks one after the other. A check fails if the pool does not serve."""
    found = []
    for what, code, options, judge in _CHECKS:
        result = sandbox.execute(code, **options)
        passed = result.route == "pool" and judge(result)
        found.append(Check(what, passed, "" if passed else f"{result.outcome}: {result.error:.300}"))
    return found
