"""One target in a process of its own, under atheris: `python -m tests.fuzz.engine TARGET INPUTS DIRECTORY`.

    DIRECTORY/corpus    inputs that reached something new, kept for the next run       crash-*, timeout-*   reproducers
             /figures   JSON, written now and then and at the end                      slowest              that input

libFuzzer's own loop ends the process on a failure and does not return; after the last input this process exits.
Memory is limited three times: each input's by `watch.py`, the resident set by libFuzzer, the address space by the kernel.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import atheris

from tests.fuzz import corpus
from tests.fuzz.place import SEEDS
from tests.fuzz.target import Target, load
from tests.fuzz.watch import Watch, peak_rss

_ADDRESS_SPACE = 2 << 30
_RSS_MB = 1024
_TIMEOUT_S = 30
_WRITE_EVERY = 1000
#: One input in so many has its memory counted to the byte.
_TRACED = 32
#: Of the inputs, the share that is bent by the target's own rules; the rest by libFuzzer's.
_OWN = 0.6


@dataclass
class Figures:
    inputs: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    slowest_ms: float = 0.0
    most_bytes: int = 0  #: of memory for one input
    peak_rss: int = 0


class Run:
    """Counts, and keeps the slowest input."""

    def __init__(self, watch: Watch, inputs: int, directory: Path) -> None:
        self._watch = watch
        self._inputs = inputs
        self._directory = directory
        self._figures = Figures()
        self._started = time.monotonic()

    def one(self, data: bytes) -> None:
        spent = self._watch.run(data)
        figures = self._figures
        figures.inputs += 1
        figures.most_bytes = max(figures.most_bytes, spent.bytes)
        if spent.cpu_s * 1e3 > figures.slowest_ms:
            figures.slowest_ms = spent.cpu_s * 1e3
            (self._directory / "slowest").write_bytes(data)
        if figures.inputs % _WRITE_EVERY == 0 or figures.inputs == self._inputs:
            self._write()
        if figures.inputs == self._inputs:
            os._exit(0)

    def _write(self) -> None:
        self._figures.seconds = time.monotonic() - self._started
        self._figures.cpu_s = time.process_time()
        self._figures.peak_rss = peak_rss()
        (self._directory / "figures").write_text(json.dumps(asdict(self._figures)))


def _bend(target: Target, data: bytes, most: int, seed: int) -> bytes:
    random = Random(seed)
    if random.random() < _OWN:
        return target.mutate(data, random)[:most]
    return atheris.Mutate(data, most)  # type: ignore[no-any-return]


def _dictionary(target: Target, directory: Path) -> Path:
    path = directory / "words"
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words)
    path.write_text("".join(f'"{word}"\n' for word in escaped))
    return path


def _options(target: Target, name: str, directory: Path) -> list[str]:
    return [
        str(directory / "corpus"), str(SEEDS / name), f"-artifact_prefix={directory}/", f"-max_len={target.max_len}",
        f"-timeout={_TIMEOUT_S}", f"-rss_limit_mb={_RSS_MB}", f"-dict={_dictionary(target, directory)}",
    ]  # fmt: skip


def main() -> None:
    name, inputs, directory = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    with atheris.instrument_imports(include=["pool", "runner"], enable_loader_override=False):
        target = load(name)
    corpus.write(directory / "corpus", target.found())
    run = Run(Watch(target, every=_TRACED), inputs or target.inputs, directory)
    atheris.Setup(
        [name, *_options(target, name, directory)],
        run.one,
        custom_mutator=lambda data, most, seed: _bend(target, data, most, seed),
    )
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
