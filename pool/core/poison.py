"""Poison memory: code that has cost its pool several workers is refused for a while.

    remembered ──k-th kill within window_s──▶ refused for refuse_s ──▶ remembered: with one more kill within window_s of
        ▲                                         │                     the last k - 1 it is refused again
        └──────── last kill older than window_s ──┴── pardon ──▶ forgotten

Which failures of a worker count as a kill (`worker_end.py` and `worker_transitions.py` decide):

    counted      the worker broke down or broke the protocol while it had the code or cleaned up after it
                 the worker was not clean after it, or not free within CLEANING_S
                 the worker did not answer at the job's deadline and was killed with it
    not counted  errors, crashes, and limits that the runner enforced, memory among them: the worker goes on
                 anything after the job was cancelled
                 a job that was not sent to its worker, or that the worker did not start by the deadline
                 a container that somebody removed; a failed start
                 shutdown, recycling and every other stop that the pool decides on
                 the last job of a worker: it is stopped anyway, clean or not
                 a worker that broke down while the engine was away, which ends its containers when it ends: it is
                 counted, and taken back when its removal gets no answer; until then waiting jobs are not rejected

A worker that ran out of memory as a whole is counted by the consequence: if the kernel kills the child, the worker goes
on; if it kills the zygote or the runner, the worker breaks down or is not clean.

Code is known by a digest. Memory is bounded: the last k kills of each code, and the codes with the latest kills.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

#: Codes that are remembered. Each has cost at least one worker, so this many take hours.
MAX_CODES = 10_000
#: Kills that a refusal lists, and characters about each: a message of a few hundred characters.
LISTED_KILLS = 3
LISTED_CHARS = 160


class Kill(NamedTuple):
    at: float  #: monotonic seconds
    worker: str
    what: str


class PoisonView(NamedTuple):
    """One code that is remembered, as the snapshot shows it."""

    code: str
    kills: tuple[Kill, ...]  #: oldest first
    refused_until: float | None  #: monotonic seconds; None: it may run


class Poison:
    """The poison memory of one pool. With `kills` 0 it remembers and refuses nothing."""

    def __init__(self, *, kills: int, window_s: float, refuse_s: float) -> None:
        self.refused: dict[str, float] = {}  #: codes, and until when they are refused; may include times in the past
        self._most = kills
        self._window_s = window_s
        self._refuse_s = refuse_s
        self._kills: OrderedDict[str, deque[Kill]] = OrderedDict()  # by last kill, the oldest first

    def killed(self, code: str, worker: str, what: str, *, now: float) -> bool:
        """Count one more worker that was lost to this code. Returns whether the code is refused from now on."""
        if not self._most:
            return False
        self._forget_old(now)
        kills = self._kills.setdefault(code, deque(maxlen=self._most))
        self._kills.move_to_end(code)
        kills.append(Kill(now, worker, what[:LISTED_CHARS]))
        if len(self._kills) > MAX_CODES:
            self._forget(next(iter(self._kills)))
        if len(kills) < self._most or kills[0].at <= now - self._window_s:
            return False
        self.refused[code] = now + self._refuse_s
        return True

    def refused_s(self, code: str, now: float) -> float | None:
        """Seconds for which this code is still refused, or None."""
        until = self.refused.get(code, now)
        return until - now if until > now else None

    def count(self, code: str, now: float) -> int:
        """Kills within the window; no more than are needed for a refusal."""
        return sum(kill.at > now - self._window_s for kill in self._kills.get(code, ()))

    def history(self, code: str, now: float) -> str:
        """The last kills as text, the newest first."""
        kills = list(self._kills.get(code, ()))[-LISTED_KILLS:]
        return "; ".join(f"{now - kill.at:.0f} s ago {kill.worker} {kill.what}" for kill in reversed(kills))

    def explain(self, code: str, now: float) -> str:
        """Why a job of this code is refused, and what to do."""
        left_s = self.refused_s(code, now) or 0.0
        return (
            f"This code has cost {len(self._kills[code])} workers and is refused for {left_s:.0f} s more: "
            f"{self.history(code, now)}. Change the code, or ask an operator to examine it and to lift the refusal: "
            f"pool-admin pardon {code}"
        )

    def take_back(self, code: str, worker: str) -> bool:
        """The code was not the cause of this worker's end. Returns whether the code was refused and may run again."""
        if (kills := self._kills.get(code)) is None or not any(kill.worker == worker for kill in kills):
            return False
        left = [kill for kill in kills if kill.worker != worker]
        freed = self.refused.pop(code, None) is not None
        kills.clear()
        kills.extend(left)
        if not left:
            self._forget(code)
        return freed

    def pardon(self, code: str | None) -> list[str]:
        """Forget the kills of this code, or of all code. Returns the codes that were remembered."""
        pardoned = [each for each in self._kills if code in {None, each}]
        for each in pardoned:
            self._forget(each)
        return pardoned

    def view(self, now: float) -> list[PoisonView]:
        """The remembered codes, the latest kill first."""
        self._forget_old(now)
        return [
            PoisonView(code, tuple(kills), until if (until := self.refused.get(code, now)) > now else None)
            for code, kills in reversed(self._kills.items())
        ]

    def _forget_old(self, now: float) -> None:
        while self._kills:
            code, kills = next(iter(self._kills.items()))
            if kills[-1].at > now - self._window_s or self.refused_s(code, now) is not None:
                return
            self._forget(code)

    def _forget(self, code: str) -> None:
        del self._kills[code]
        self.refused.pop(code, None)
