"""The result of one run of a case, with the fields that the pool and the plain process have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from pool.model import JobResult
from tests.corpus.inside.canonical import canonical

#: Of a message that is compared: the runner leaves out the middle of a long one.
_MESSAGE_CHARS = 8000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    outcome: str  #: one of the pool's; a plain process can be ok, error, memory, timeout or crash
    type: str = ""  #: of the exception
    message: str = ""
    exit_code: int | None = None
    value: str = ""  #: canonical text, see inside/canonical.py
    stdout: str = ""
    stderr: str = ""

    def differences(self, other: Seen) -> tuple[str, ...]:
        """The names of the fields in which the two differ."""
        return tuple(each.name for each in fields(self) if getattr(self, each.name) != getattr(other, each.name))


def of_result(result: JobResult) -> Seen:
    error = result.error
    return Seen(
        outcome=result.outcome.value,
        type=error.type if error else "",
        message=_plain(error.message)[:_MESSAGE_CHARS] if error else "",
        exit_code=result.exit_code if result.outcome in {"ok", "error"} else None,
        value=canonical(result.value) if result.ok else "",
        stdout=_plain(result.stdout),
        stderr=_plain(result.stderr),
    )


def of_answer(answer: Mapping[str, object]) -> Seen:
    """From a line of inside/driver.py."""
    told = {name: answer[name] for name in ("outcome", "type", "message", "exit_code", "value", "stdout", "stderr")}
    told |= {name: _plain(str(told[name])) for name in ("stdout", "stderr")}
    told["message"] = _plain(str(told["message"]))[:_MESSAGE_CHARS]
    return Seen(**told)  # type: ignore[arg-type]


def _plain(text: str) -> str:
    """Each slot of the driver has a scratch directory of its own; in the pool it is /tmp itself."""
    return re.sub(r"/tmp/slot\d+\b", "/tmp", text)


def brief(seen: Seen, names: tuple[str, ...]) -> str:
    return json.dumps({name: str(getattr(seen, name))[:200] for name in names}, ensure_ascii=True)
