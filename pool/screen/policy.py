"""What one pool's screen allows: a mode, and the modules and names it adds or takes away."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, cast

from pool.errors import ConfigError

Mode = Literal["strict", "standard", "off"]
MODES = ("strict", "standard", "off")
_LISTS = ("allow_modules", "deny_modules", "allow_names", "deny_names")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The `screen` section of a pool. Denied beats allowed; a longer module name beats a shorter one.

    `allow_modules: [scipy, os.path]` are modules with what is below them; what the screen has against parts of
    a library (`numpy.f2py`) stays until the part is named. `allow_names: [open, _meta]` are builtins and attributes,
    unqualified.
    """

    mode: Mode = "standard"
    allow_modules: tuple[str, ...] = ()
    deny_modules: tuple[str, ...] = ()
    allow_names: tuple[str, ...] = ()
    deny_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"the screen's mode is strict, standard or off, not {self.mode!r:.40}")

    @property
    def strict(self) -> bool:
        return self.mode == "strict"

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Policy:
        """Raises ConfigError for anything but what `to_json` wrote; what is left out has its default."""
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
