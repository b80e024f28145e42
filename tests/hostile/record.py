"""The result of each entry of the catalogue, recorded while the tests run, for the table in docs/security.md.

One JSON file for each test process, below .cache/hostile; `python -m tests.hostile.table` makes the table of them.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

DIRECTORY = Path(__file__).parents[2] / ".cache" / "hostile"

#: What became of an attack; the words of the catalogue.
OUTCOMES = {
    "REJ": "the screen refused it",
    "INERT": "it ran and gained nothing beyond its own sandbox",
    "ERR": "the call failed",
    "KILL": "the job was killed, with a typed outcome; the worker lived",
    "QUAR": "the worker was destroyed and replaced",
    "DROP": "the frame was refused and its sender closed",
}
#: The layers that can stop one, outermost last.
LAYERS = (
    "screen", "job filter", "landlock", "namespaces", "limits", "runner", "container", "seccomp", "daemon", "image",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One attack, tried. `stopped_by`: the layers of which each alone would have stopped it, as far as the test shows."""

    number: str  #: of the catalogue, such as "C4"
    title: str
    outcome: str
    stopped_by: tuple[str, ...]
    seen: str  #: what the attack itself saw, in a few words
    outside: str  #: what the same attack sees without a sandbox; "" where it is not tried
    screen_off: bool = True  #: whether the screen let everything pass

    def __post_init__(self) -> None:
        assert self.outcome in OUTCOMES, self.outcome
        assert set(self.stopped_by) <= set(LAYERS), self.stopped_by


def write(entries: Sequence[Entry]) -> None:
    if entries:
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        path = DIRECTORY / f"{os.getpid()}.json"
        path.write_text(json.dumps([asdict(each) for each in entries], indent=1))
