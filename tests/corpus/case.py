"""One program of a corpus with what it is run with: the same for the pool and for the plain process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str  #: unique, and fit for a job id
    part: str  #: of the corpus
    code: str
    entry: str | None = None  #: None: a script
    args: Sequence[object] = ()
    seed: int = 0
    files: Mapping[str, bytes] = field(default_factory=dict)
    broken: bool = False  #: it was changed so that it fails

    def options(self) -> dict[str, object]:
        """What `Client.run` and `submit_many` take."""
        return {"entry": self.entry, "args": list(self.args), "seed": self.seed, "files": dict(self.files)}


def share_of(cases: Sequence[Case], share: float) -> list[Case]:
    """Evenly spread over all of them, at least one."""
    count = max(1, round(len(cases) * share))
    return [cases[at * len(cases) // count] for at in range(count)]
