"""Write the tables and test vectors of docs/protocol.md out of the code that they describe.

    <!-- generated: NAME -->  lines made by the function of that name  <!-- end -->

`python -m tools.protocol` rewrites them. A test compares the page with what would be written, decodes each vector as it
stands on the page and encodes it again.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import msgspec
from msgspec.inspect import (
    BoolType,
    DictType,
    EnumType,
    Field,
    FloatType,
    IntType,
    LiteralType,
    NoneType,
    StrType,
    StructType,
    TupleType,
    Type,
    UnionType,
    VarTupleType,
)

from pool import errors, wire
from pool.model import Outcome, StartKind
from pool.wire import caps
from tools.protocol_values import refused_vectors, value_bounds, value_codes, value_vectors

PAGE = Path(__file__).resolve().parents[1] / "docs" / "protocol.md"
_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

# ---- messages ----

FROM_CLIENT = (wire.Submit, wire.Watch, wire.Cancel, wire.Ping, wire.Mine)
TO_CLIENT = (wire.Accepted, wire.Refused, wire.Output, wire.Result, wire.Pong, wire.AdminReply)
PARTS = (wire.JobLimits, wire.Grader, wire.Grade, wire.Fault, wire.Finding, wire.Call)
#: What a field is, where the source has no comment beside it.
_MEANINGS = {
    "request": "number of the request",
    "job_id": "the job",
    "entry": "the function to call; nil: a script, whose variable `result` is the value",
    "files": "names of the files, in the order of their frames",
    "env": "environment variables; the pool has to allow each name",
    "seed": "for `random` and `numpy.random`",
    "pool": "name of the pool",
    "limits": "the limits asked for; each at most the maximum of the pool",
    "queue_timeout_s": "how long it may wait for a worker; nil: what the pool says",
    "wall_s": "seconds from the start of the code to its end",
    "cpu_s": "CPU seconds",
    "memory": "bytes",
    "tmp": "bytes of scratch space",
    "output": "bytes kept of stdout, and of stderr",
    "result": "bytes of the encoded value and of the files together",
    "processes": "processes and threads at the same time",
    "python": "the interpreter that pickled it, such as `3.11`",
    "pickled": "the code frame is a cloudpickle; false: source text in UTF-8",
    "arguments": "how many frames of the payload its arguments have",
    "code": "which error: see below; of an AdminReply empty, if it succeeded",
    "message": "what happened, with which value, and what to do",
    "fields": "facts of the error, such as `retry_after_s`",
    "name": "which stream",
    "offset": "bytes of the stream before this piece",
    "outcome": "how it ended: see below",
    "reason": "one sentence, or empty",
    "exit_code": "of its process",
    "signal": "that ended its process",
    "truncated": "which of `stdout` and `stderr` were cut at the limit",
    "stdout_bytes": "bytes it wrote, kept or not",
    "stderr_bytes": "bytes it wrote, kept or not",
    "max_rss_bytes": "largest memory",
    "queue_ms": "from its arrival to its lease",
    "dispatch_ms": "to the start of the code",
    "run_ms": "to the end of the code",
    "collect_ms": "until the daemon had the whole answer",
    "total_ms": "the four parts together",
    "grade_ms": "from then on until there was a grade",
    "worker": "that ran it; nil: none did",
    "container": "of that worker",
    "attempt": "how many attempts it had, this one included",
    "start": "what the job found: see below",
    "fallback": "not used by the daemon",
    "grade": "how the grading ended; nil: no grader was given",
    "version": "of the daemon",
    "type": "name of the exception's class, such as `KeyError`",
    "traceback": "text of it",
    "findings": "what the screen refuses",
    "rule": "such as `S101`",
    "line": "from 1",
    "column": "from 1, in characters",
    "remedy": "what to write instead",
    "started_ns": "CLOCK_MONOTONIC",
    "ended_ns": "CLOCK_MONOTONIC",
    "Submit.calls": "of a chunk: how many frames of arguments each call has; empty: no chunk",
    "Submit.python": "with `pickled`: the interpreter that pickled it, such as `3.11`",
    "Submit.session": "cancel the job when the client of this session is gone; nil: it goes on",
    "Result.calls": "of a chunk: how many of its calls have begun",
    "AdminReply.code": "empty: it succeeded; else which error: see below",
    "Fault.message": "text of the exception",
    "sizes": "bytes of each of [stdout, stderr, error, *files, *value] in the frame of the call",
}


def from_client() -> Iterator[str]:
    for kind in FROM_CLIENT:
        yield from _message(kind)


def to_client() -> Iterator[str]:
    for kind in TO_CLIENT:
        yield from _message(kind)


def parts() -> Iterator[str]:
    for kind in PARTS:
        yield from _message(kind)


def _message(kind: type[msgspec.Struct]) -> Iterator[str]:
    found = msgspec.inspect.type_info(kind)
    assert isinstance(found, StructType)
    tag = f', `"type": "{found.tag}"`' if found.tag else ""
    yield from ("", f"**{kind.__name__}**{tag}", "", "| field | type | if left out | what it is |", "|---|---|---|---|")
    comments = _comments(kind)
    for field in found.fields:
        own = _MEANINGS.get(f"{kind.__name__}.{field.name}") or comments.get(field.name)
        meaning = own or _MEANINGS[field.name]
        yield f"| `{field.name}` | {type_text(field.type)} | {_default(field)} | {_cell(meaning)} |"


def _comments(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The comments beside the fields in the source."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, wire.Message):
            found |= dict(re.findall(r"^    (\w+): .*?  #: (.+)$", inspect.getsource(base), re.MULTILINE))
    return found


def _default(field: Field) -> str:
    if field.required:
        return "not allowed"
    if isinstance(field.default, msgspec.Struct):
        return "all fields left out"
    empty = field.default_factory() if callable(field.default_factory) else field.default
    given = list(empty) if isinstance(empty, tuple) else empty
    return "nil" if given is None else f"`{json.dumps(given)}`"


def type_text(kind: Type) -> str:
    """A type with its bounds, as the page has it. Raises KeyError for one that it has no words for."""
    return _TEXTS[type(kind)](kind)


def _union(kind: Any) -> str:
    return " or ".join(dict.fromkeys(map(type_text, kind.types)))


def _int(kind: Any) -> str:
    return "int" if kind.ge is None else f"int {kind.ge:,} to {_large(kind.le)}"


def _large(number: int) -> str:
    return f"2^{number.bit_length() - 1}" if number >= 1 << 40 else f"{number:,}"


def _float(kind: Any) -> str:
    if kind.le is None:
        return "float or int"
    return f"float or int {'above 0, up' if kind.ge is None else f'{kind.ge:,.0f}'} to {kind.le:,.0f}"


def _str(kind: Any) -> str:
    what = "str" if kind.pattern is None else "id"
    return what if kind.max_length is None else f"{what} of {kind.min_length or 0} to {kind.max_length:,} characters"


def _some(kind: Any) -> str:
    return "" if kind.max_length is None else f" of {kind.min_length or 0} to {kind.max_length}"


_TEXTS: dict[type, Callable[[Any], str]] = {
    UnionType: _union,
    IntType: _int,
    FloatType: _float,
    StrType: _str,
    NoneType: lambda _: "nil",
    BoolType: lambda _: "bool",
    LiteralType: lambda kind: " or ".join(f'`"{each}"`' for each in kind.values),
    EnumType: lambda kind: str(kind.cls.__name__),
    StructType: lambda kind: f"map: {kind.cls.__name__}",
    TupleType: lambda kind: "array of " + ", then ".join(type_text(each) for each in kind.item_types),
    VarTupleType: lambda kind: f"array{_some(kind)}: {type_text(kind.item_type)}",
    DictType: lambda kind: f"map{_some(kind)}: {type_text(kind.key_type)} to {type_text(kind.value_type)}",
}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").rstrip(".")


# ---- numbers, words ----


def bounds() -> Iterator[str]:
    yield from ("| bound | value |", "|---|---:|")
    rows = {
        "version of this protocol": wire.PROTOCOL_VERSION,
        "bytes of a header": caps.MAX_HEADER_BYTES,
        "payload frames of a message": caps.MAX_FRAMES,
        "bytes of a frame that the daemon sends": caps.MAX_FRAME_BYTES,
        "bytes of the code": caps.MAX_CODE_BYTES,
        "bytes of all payload frames of a Submit": caps.MAX_JOB_BYTES,
        "calls of a chunk": caps.MAX_CALLS,
        "files that a job can leave": caps.MAX_FILES_OUT,
        "bytes of one Output": caps.MAX_PRINTED_BYTES,
    }
    yield from (f"| {what} | {count:,} |" for what, count in rows.items())


def error_codes() -> Iterator[str]:
    yield from ("| code | is a | what it means |", "|---|---|---|")
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and "code" in vars(each)]
    for kind in kinds:
        if issubclass(kind, errors.PoolError) and kind is not errors.BatchError:
            parent = kind.__mro__[1]
            above = f"`{parent.code}`" if issubclass(parent, errors.PoolError) else ""
            yield f"| `{kind.code}` | {above} | {(kind.__doc__ or '').rstrip('.')} |"


def outcomes() -> Iterator[str]:
    yield from ("| word | of | what it means |", "|---|---|---|")
    for enum in (Outcome, StartKind):
        comments = dict(re.findall(r'^    \w+ = "(\w+)"  #: (.+)$', inspect.getsource(enum), re.MULTILINE))
        yield from (f"| `{each}` | {enum.__name__} | {_cell(comments[each])} |" for each in enum)


# ---- test vectors ----

MESSAGES: tuple[wire.Message, ...] = (
    wire.Ping(request=1, session="8f0c"),
    wire.Submit(request=2, job_id="4d3a", entry="main", watch=True),
    wire.Submit(
        request=3,
        job_id="4d3b",
        limits=wire.JobLimits(wall_s=2.5, memory=1 << 28),
        files=("a.csv",),
        env={"MODE": "fast"},
        grade=wire.Grader(entry="grade", arguments=1),
    ),
    wire.Watch(request=4, job_id="4d3a", stream=True),
    wire.Cancel(request=5, job_id="4d3a"),
    wire.Mine(request=6),
    wire.Pong(request=1, instance="c2e9", version="0.1.0"),
    wire.Accepted(request=2, job_id="4d3a"),
    wire.Refused(request=3, code="backlog_full", message="the backlog is full", fields={"retry_after_s": 0.5}),
    wire.Output(job_id="4d3a", name="stdout", offset=0),
    wire.Result(job_id="4d3a", outcome=Outcome.OK, run_ms=1.5, total_ms=4.0, worker="w-1", attempt=1),
    wire.AdminReply(request=6),
)


def message_vectors() -> Iterator[str]:
    yield from ("| header | in hex |", "|---|---|")
    for message in MESSAGES:
        header = bytes(wire.encode(message)[1])
        yield f"| `{json.dumps(msgpack.unpackb(header))}` | `{header.hex()}` |"


# ---- the page ----

BLOCKS: dict[str, Callable[[], Iterator[str]]] = {
    each.__name__: each
    for each in (
        bounds, from_client, to_client, parts, error_codes, outcomes,
        value_codes, value_bounds, value_vectors, refused_vectors, message_vectors,
    )
}  # fmt: skip


def render(page: str) -> str:
    """The page with its generated lines as they should be. Raises KeyError for a block that nothing generates."""
    return _BLOCK.sub(lambda found: "\n".join((found[1].rstrip(), *BLOCKS[found[2]](), found[4])), page)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
