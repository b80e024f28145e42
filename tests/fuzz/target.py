"""What a target is, and which there are."""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

#: The slowest first, since two run at a time.
NAMES = ("screen", "values", "zmtp", "worker", "config", "channel", "wire")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`one` raises for a broken contract and returns for anything else."""

    contract: str  #: in one line, for the table
    one: Callable[[bytes], None]
    mutate: Callable[[bytes, Random], bytes]  #: an input that is bent, by the rules of its grammar
    seeds: Callable[[], Iterable[bytes]]  #: small ones, of every kind; `corpus.py` keeps them as files
    found: Callable[[], Iterable[bytes]] = tuple  #: more of them, from the checkout
    words: tuple[bytes, ...] = ()  #: the dictionary
    inputs: int  #: how many `./dev fuzz` runs
    max_len: int = 4096
    base_bytes: int  #: memory that any input may take while it is looked at
    per_byte: int  #: and what it may take for each of its own bytes
    cpu_s: float = 2.0


def load(name: str) -> Target:
    target = importlib.import_module(f"tests.fuzz.targets.{name}").TARGET
    assert isinstance(target, Target)
    return target
