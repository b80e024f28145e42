"""The seeds as files: `python -m tests.fuzz.corpus` writes anew what the targets' `seeds` give.

corpus/TARGET/NAME     read by every run and every test; inputs that once broke a contract stay here, as broke-*,
                       and small ones of other kinds that a run with coverage kept, as kept-*
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tests.fuzz.place import SEEDS, settle
from tests.fuzz.target import NAMES, load

_KEPT = ("broke-", "kept-")


def read(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((SEEDS / name).iterdir())]


def write(directory: Path, inputs: Iterable[bytes]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (directory / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)


def _renew(name: str) -> None:
    directory = SEEDS / name
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        if not path.name.startswith(_KEPT):
            path.unlink()
    write(directory, load(name).seeds())


if __name__ == "__main__":
    settle("tests.fuzz.corpus")
    for each in NAMES:
        _renew(each)
