"""${VAR} and ${VAR:default} in one scalar, after parsing: a variable can change a value, never the structure.

    ${POOL_RUN_DIR:/run/pool}   the variable, or the default when it is not set; set but empty counts as set
    ${POOL_IMAGE}               the variable; not set is an error
    a-${X:b}-c                  inside other text
    $${X}                       the text ${X}

What comes out of a variable is not looked at again, so a variable cannot name another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<inside>[^}]*)(?P<end>\}?)")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<default>.*))?", re.DOTALL)


def interpolate(text: str, environ: Mapping[str, str]) -> str:
    """The text with its references filled in. Raises ValueError with what is wrong and what to write instead."""
    return _REFERENCE.sub(lambda match: _filled(match, environ), text)


def is_one_reference(text: str) -> bool:
    """Whether the whole scalar is a single reference, so that its value may be a number or a truth value."""
    match = _REFERENCE.fullmatch(text)
    return match is not None and match["inside"] is not None


def _filled(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match["inside"] is None:
        return "${"
    inside = _INSIDE.fullmatch(match["inside"])
    if inside is None or not match["end"] or "${" in match["inside"]:
        raise ValueError(
            f"{match[0]!r:.60} is not a reference; write ${{VARIABLE}} or ${{VARIABLE:default}}, not nested, "
            "or $${ for a literal ${"
        )
    value = environ.get(inside["name"], inside["default"])
    if value is None:
        raise ValueError(
            f"the environment variable {inside['name']} is not set; "
            f"set it, or give a default: ${{{inside['name']}:default}}"
        )
    return value
