"""Poison memory: code that has cost its pool worker after worker is refused for a while.

    remembered ──k-th kill within window_s──▶ refused for refuse_s ──▶ remembered: one more kill within window_s of the
        ▲                                         │                     last k - 1 and it is refused again
        └──────── last kill older than window_s ──┴── pardon ──▶ forgotten

Code is known by a digest. Memory is bounded: the last k kills of each code, and the codes that killed last. What counts
as a kill is decided in `worker_transitions.py`:

    counted      the worker broke down, or broke the protocol, while it ran the code or cleared up after it
                 the worker was not clean after it, or not free within CLEARING_S
                 the worker did not answer at the job's deadline and was killed with it
    not counted  errors, crashes, and limits that the runner enforced, memory among them: the worker lives on
                 a job that was cancelled, whatever becomes of its worker
                 a job whose worker had not said that it began; a container that somebody removed; a start that failed
                 shutdown, recycling and every other stop that the pool decides on
                 the last job of a worker that is worn: it is stopped anyway, clean or not

A worker that ran out of memory as a whole is counted as what it leads to: the kernel kills the child, and the worker is
fine; or its zygote or runner, and the worker breaks down or is not clean.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

#: Codes that are remembered; each has cost at least one worker, so this is hours of destruction.
MAX_CODES = 10_000
#: Kills that a refusal tells of, and characters of what is told about each: a message of a few hundred characters.
TOLD_KILLS = 3
TOLD_CHARS = 160


class Kill(NamedTuple):
    at: float  #: monotonic seconds
    worker: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonView:
    """One code that is remembered, as the snapshot shows it."""

    code: str
    kills: tuple[Kill, ...]  #: oldest first
    refused_until: float | None  #: monotonic seconds; None: it may run


@dataclass(slots=True, kw_only=True)
class _Dossier:
    kills: deque[Kill]
    refused_until: float = field(default=float("-inf"))


class Poison:
    """What one pool remembers. `kills` 0: nothing, and nothing is refused."""

    def __init__(self, *, kills: int, window_s: float, refuse_s: float) -> None:
        self._most = kills
        self._window_s = window_s
        self._refuse_s = refuse_s
        self._dossiers: OrderedDict[str, _Dossier] = OrderedDict()  # by last kill, the oldest first

    def killed(self, code: str, worker: str, what: str, *, now: float) -> bool:
        """One more worker was lost to this code; whether it is refused from now on."""
        if not self._most:
            return False
        self._forget_old(now)
        dossier = self._dossiers.setdefault(code, _Dossier(kills=deque(maxlen=self._most)))
        self._dossiers.move_to_end(code)
        dossier.kills.append(Kill(now, worker, what[:TOLD_CHARS]))
        if len(self._dossiers) > MAX_CODES:
            self._dossiers.popitem(last=False)
        if len(dossier.kills) < self._most or dossier.kills[0].at <= now - self._window_s:
            return False
        dossier.refused_until = now + self._refuse_s
        return True

    def refused_s(self, code: str, now: float) -> float | None:
        """For how long this code is still refused; None: it is not."""
        dossier = self._dossiers.get(code)
        return None if dossier is None or dossier.refused_until <= now else dossier.refused_until - now

    def count(self, code: str, now: float) -> int:
        """Kills within the window; no more than are needed for a refusal."""
        dossier = self._dossiers.get(code)
        return 0 if dossier is None else sum(kill.at > now - self._window_s for kill in dossier.kills)

    def history(self, code: str, now: float) -> str:
        """The last kills in words, the newest first."""
        dossier = self._dossiers.get(code)
        kills = list(dossier.kills)[-TOLD_KILLS:] if dossier is not None else []
        return "; ".join(f"{now - kill.at:.0f} s ago {kill.worker} {kill.what}" for kill in reversed(kills))

    def sentence(self, code: str, now: float) -> str:
        """Why a job of this code is refused."""
        dossier, left_s = self._dossiers[code], self.refused_s(code, now) or 0.0
        return (
            f"This code has cost {len(dossier.kills)} workers and is refused for {left_s:.0f} s more: "
            f"{self.history(code, now)}. Change it, or let an operator look at it and lift this: "
            f"pool-admin pardon {code}"
        )

    def pardon(self, code: str | None) -> list[str]:
        """Forget what this code, or every code, has done; which ones were known."""
        pardoned = [each for each in self._dossiers if code in {None, each}]
        for each in pardoned:
            del self._dossiers[each]
        return pardoned

    def view(self, now: float) -> list[PoisonView]:
        """What is still remembered, the last killer first."""
        self._forget_old(now)
        return [
            PoisonView(
                code=code,
                kills=tuple(dossier.kills),
                refused_until=dossier.refused_until if dossier.refused_until > now else None,
            )
            for code, dossier in reversed(self._dossiers.items())
        ]

    def _forget_old(self, now: float) -> None:
        while self._dossiers:
            dossier = next(iter(self._dossiers.values()))
            if dossier.kills[-1].at > now - self._window_s or dossier.refused_until > now:
                return
            self._dossiers.popitem(last=False)
