"""Turns a Submit into the Run that its worker will get, or refuses it with the field, the problem and the remedy.

The client makes the same checks earlier, with better messages. Other programs may connect, so everything is checked
here as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from pool import wire
from pool.config import Template
from pool.errors import InvalidJobError, LimitExceededError, TooLargeError
from pool.units import format_size

_SIZES = frozenset({"memory", "tmp", "output", "result"})
_NO_LIMITS = wire.JobLimits()
_FIELDS = wire.JobFields.__struct_fields__
_of_job = attrgetter(*_FIELDS)
_encoder = msgspec.msgpack.Encoder()


class Digests(NamedTuple):
    """The digests of a submission. They have 128 bits, so that collisions cannot be made."""

    code: str  #: of the program alone: any user and any arguments give the same
    whole: bytes  #: of the job, without how it was asked for (request number, watch, stream, session)


def digest(submit: wire.Submit, payload: Sequence[wire.Frame]) -> Digests:
    """Reads each payload frame once; about 1 ms for each MB."""
    entry = (submit.entry or "").encode("utf-8", "surrogatepass")
    code = hashlib.blake2b(b"%d %d " % (submit.pickled, len(entry)), digest_size=16)
    code.update(entry)
    code.update(payload[0])
    whole = hashlib.blake2b(code.digest(), digest_size=16)
    whole.update(
        _encoder.encode(msgspec.structs.replace(submit, request=0, watch=False, stream=False, session=None, sent_ns=0))
    )
    for frame in payload[1:]:
        whole.update(len(frame).to_bytes(8))
        whole.update(frame)
    return Digests(code.hexdigest(), whole.digest())


def prepare(submit: wire.Submit, payload: Sequence[wire.Frame], template: Template, *, size_bytes: int) -> wire.Run:
    """The header for the worker, with every limit set; its epoch is set at the dispatch. `size_bytes`: of the payload.

    Raises JobRefusedError.
    """
    if len(payload) < 2 + len(submit.files):
        raise InvalidJobError("the payload must be code, stdin, one frame for each file, then the arguments")
    if len(payload[0]) > wire.MAX_CODE_BYTES or size_bytes > wire.MAX_JOB_BYTES:
        raise _too_large(len(payload[0]), size_bytes)
    if not submit.pickled and 0 in bytes(payload[0]):
        raise InvalidJobError("code: source text cannot hold a NUL byte; take it out")
    if submit.calls or submit.apart:
        _check_calls(submit, payload)
    if submit.files:
        _check_files(submit.files)
    if submit.env:
        _check_env(submit.env, template.env_allow)
    limits = dict(vars(template.limits))
    if submit.limits != _NO_LIMITS:
        limits |= _asked(submit.limits, template)
    return wire.Run(epoch=0, **dict(zip(_FIELDS, _of_job(submit), strict=True)), **limits)


def _too_large(code_bytes: int, size_bytes: int) -> TooLargeError:
    if code_bytes > wire.MAX_CODE_BYTES:
        return TooLargeError(
            f"the code has {code_bytes} bytes, at most {wire.MAX_CODE_BYTES} fit; pass data as arguments or files",
            size=code_bytes,
            maximum=wire.MAX_CODE_BYTES,
        )
    return TooLargeError(
        f"the job has {format_size(size_bytes)}, at most {format_size(wire.MAX_JOB_BYTES)} fit; "
        "put what jobs share into a data set of the template",
        size=size_bytes,
        maximum=wire.MAX_JOB_BYTES,
    )


def _check_calls(submit: wire.Submit, payload: Sequence[wire.Frame]) -> None:
    if submit.grade is not None or memoryview(payload[1]).nbytes:
        raise InvalidJobError("calls: a chunk has neither a grade nor a stdin of all calls; submit single jobs")
    if submit.apart and (not submit.calls or 0 in submit.calls):
        raise InvalidJobError(
            "apart: the first frame of each call is its stdin, and a call has none; send an empty one"
        )
    if submit.entry is None and not submit.pickled and not submit.apart:
        raise InvalidJobError("calls: a chunk calls a function; name it as entry, or submit single jobs")
    frames = len(payload) - 2 - len(submit.files)
    if sum(submit.calls) != frames:
        raise InvalidJobError(f"calls: they have {sum(submit.calls)} frames of arguments, and {frames} were sent")


def _check_files(names: Sequence[str]) -> None:
    if (wrong := wire.misplaced(names)) is not None:
        raise InvalidJobError(
            f"files: {wrong!r:.60} is not a relative path, or is below another file; use 1 to 255 bytes without '..'"
        )
    if len(set(names)) < len(names):
        raise InvalidJobError("files: two files have the same name; give each file a name of its own")


def _check_env(env: Mapping[str, str], allowed: Collection[str]) -> None:
    for name, value in env.items():
        if name not in allowed:
            raise InvalidJobError(
                f"env: this pool does not let a job set {name!r:.60}; allowed: {', '.join(sorted(allowed)) or 'none'} "
                "(env_allow in the pool's configuration)"
            )
        if "\0" in value:
            raise InvalidJobError(f"env: the value of {name} holds a NUL byte; take it out")


def _asked(limits: wire.JobLimits, template: Template) -> dict[str, Any]:
    """The limits that the job asks for, up to the template's maximum; for the others the template's default holds."""
    chosen: dict[str, Any] = {}
    for name in wire.JobLimits.__struct_fields__:
        wanted, most = getattr(limits, name), getattr(template.maximum, name)
        if wanted is None:
            continue
        if wanted > most:
            show = format_size if name in _SIZES else str
            raise LimitExceededError(
                f"limits.{name}: {show(wanted)} is more than this pool allows, {show(most)}; ask for less, "
                "or raise max_limits in the pool's configuration",
                limit=name,
                asked=wanted,
                maximum=most,
            )
        chosen[name] = wanted
    return chosen
