"""The screen's settings of one pool: the mode, and the modules and names that it allows or denies besides."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Literal, NamedTuple, Self, cast

from pool.errors import ConfigError
from pool.screen.vocabulary import DENIED_PARTS, REACHED, STANDARD, STRICT

Mode = Literal["strict", "standard", "off"]
MODES = ("strict", "standard", "off")
_LISTS = ("allow_modules", "deny_modules", "allow_names", "deny_names")


class _Fields(NamedTuple):
    mode: Mode = "standard"
    allow_modules: tuple[str, ...] = ()
    deny_modules: tuple[str, ...] = ()
    allow_names: tuple[str, ...] = ()
    deny_names: tuple[str, ...] = ()


class Policy(_Fields):
    """The `screen` section of a pool. Denied beats allowed; a longer module name beats a shorter one.

    `allow_modules: [scipy, os.path]` also allows their submodules. Refused parts of a library (`numpy.f2py`) stay
    refused until the part itself is listed. `allow_names: [open, _meta]` are builtins and attributes, unqualified.
    """

    __slots__ = ()

    def __new__(cls, mode: Mode = "standard", *lists: tuple[str, ...], **named: tuple[str, ...]) -> Self:
        if mode not in MODES:
            raise ConfigError(f"the screen's mode is strict, standard or off, not {mode!r:.40}")
        return super().__new__(cls, mode, *lists, **named)

    @property
    def strict(self) -> bool:
        return self.mode == "strict"

    def to_json(self) -> str:
        return json.dumps(self._asdict(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Policy:
        """Raises ConfigError for text that `to_json` cannot have written. Missing keys have their defaults."""
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            raise ConfigError("the screen's policy is not JSON; pass what Policy.to_json() returned") from None
        if not isinstance(given, dict) or not given.keys() <= {"mode", *_LISTS}:
            raise ConfigError("the screen's policy is one JSON object with the fields of Policy and no others")
        lists = {name: _words(name, given[name]) for name in _LISTS if name in given}
        return cls(mode=cast("Mode", given.get("mode", "standard")), **lists)


def _words(name: str, given: object) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
        raise ConfigError(f"{name} of the screen's policy is a list of names")
    return tuple(given)


class Modules:
    """The decisions of one policy about dotted names."""

    def __init__(self, policy: Policy) -> None:
        listed = STRICT if policy.strict else STANDARD
        self._allowed = listed | frozenset(policy.allow_modules)
        self._denied = frozenset(policy.deny_modules)
        self._added = frozenset(policy.allow_modules)

    def allows(self, name: str) -> bool:
        """The longest listed name that is this one or a package of it decides. A name in both lists is denied."""
        for prefix in _prefixes(name):
            if prefix in self._denied:
                return False
            if prefix in self._allowed:
                return True
            if prefix in DENIED_PARTS:
                return False
        return False

    def denies_member(self, path: str) -> bool:
        """Whether this member of an allowed module is denied.

        A pool that allows numpy does not allow `numpy.f2py` with it; it has to list that too.
        """
        for prefix in _prefixes(path):
            if prefix in self._denied:
                return True
            if prefix in self._added:
                break
            if prefix in DENIED_PARTS:
                return True
        parts = path.split(".")
        return any(part in REACHED and part not in self._added for part in parts[1:]) or any(
            f"{parent}.{part}" in DENIED_PARTS for parent, part in pairwise(parts[1:])
        )


def _prefixes(name: str) -> list[str]:
    """`a.b.c`, `a.b` and `a` for `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(min(len(parts), 16), 0, -1)]
