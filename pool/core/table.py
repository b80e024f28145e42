"""Transition tables: for each event and each state either a function, or the reason why nothing is done.

    Ignore   may happen in a distributed world (late, twice, an id long gone): goes into the story, changes nothing
    Illegal  only a mistake of ours leads there: raises InvalidTransition, changes nothing

A row has an entry for every state, or the import fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar, cast

from pool.core.events import Event
from pool.core.records import Record, StoryEntry
from pool.core.state import State
from pool.errors import PoolError

E = TypeVar("E", bound=Event)
R = TypeVar("R", bound=Record)
S = TypeVar("S", bound=StrEnum)

Step = Callable[[State, R, E], None]
Table = Mapping[tuple[S, type[Event]], Step[R, Event]]


class InvalidTransition(PoolError):  # noqa: N818 - named after what happened, as in the design
    """The pool was told something that cannot have happened in this state; report it with the story."""

    code = "invalid_transition"

    def __init__(self, record: Record, event: Event, why: str) -> None:
        name = type(event).__name__
        super().__init__(
            f"{name} for {record.id} while {record.state}: {why}. Nothing was changed; report this with its story.",
            record=record.id,
            state=str(record.state),
            event=name,
        )
        self.story: tuple[StoryEntry, ...] = tuple(record.history)


@dataclass(frozen=True, slots=True)
class Ignore:
    """`silent`: too frequent to be worth an entry in the story."""

    why: str
    silent: bool = False

    def __call__(self, books: State, record: Record, event: Event) -> None:
        if not self.silent:
            books.tell(record, f"{type(event).__name__} ignored: {self.why}")


@dataclass(frozen=True, slots=True)
class Illegal:
    why: str

    def __call__(self, _books: State, record: Record, event: Event) -> None:
        raise InvalidTransition(record, event, self.why)


def row(event: type[E], states: Iterable[S], **steps: Step[R, E]) -> dict[tuple[S, type[Event]], Step[R, Event]]:
    """One line of a table: an entry for each state, by its name. Raises TypeError unless each state has one."""
    by_name = {state.value: state for state in states}
    if by_name.keys() != steps.keys():
        raise TypeError(f"the row for {event.__name__} needs exactly one entry for each of {', '.join(by_name)}")
    # A step for one kind of event is only ever looked up with that kind of event.
    return {(by_name[name], event): cast("Step[R, Event]", step) for name, step in steps.items()}


def table(*rows: dict[tuple[S, type[Event]], Step[R, Event]]) -> Table[S, R]:
    return MappingProxyType({key: step for each in rows for key, step in each.items()})
