"""A Submit becomes the Run that its worker will get, or is refused with the field, the problem and the remedy.

The client checks the same things earlier and better explained; a client need not be ours, so all of it is checked here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pool import wire
from pool.config import Template, TemplateLimits
from pool.errors import InvalidJobError, LimitExceededError, TooLargeError
from pool.units import format_size

_SIZES = frozenset({"memory", "tmp", "output", "result"})


def prepare(job: wire.Submit, payload: Sequence[wire.Frame], template: Template) -> wire.Run:
    """The attempt's header, limits filled in; its epoch is set at the dispatch. Raises JobRefusedError."""
    _check_payload(job, payload)
    _check_files(job.files)
    _check_env(job.env, template.env_allow)
    limits = _limits(job.limits, template)
    return wire.Run(
        job_id=job.job_id,
        epoch=0,
        entry=job.entry,
        pickled=job.pickled,
        python=job.python,
        files=job.files,
        env=job.env,
        seed=job.seed,
        explain=job.explain,
        **limits,
    )


def code_digest(job: wire.Submit, payload: Sequence[wire.Frame]) -> str:
    """What the pool knows the program by, whoever sends it and with whatever arguments. It has 128 bits, so that
    nobody can make a program that another one is taken for.
    """
    entry = (job.entry or "").encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(b"%d %d " % (job.pickled, len(entry)), digest_size=16)
    digest.update(entry)
    digest.update(payload[0])
    return digest.hexdigest()


def _check_payload(job: wire.Submit, payload: Sequence[wire.Frame]) -> None:
    if len(payload) < 2 + len(job.files):
        raise InvalidJobError("the payload must be code, stdin, one frame for each file, then the arguments")
    code = memoryview(payload[0]).nbytes
    if code > wire.MAX_CODE_BYTES:
        raise TooLargeError(
            f"the code has {code} bytes, at most {wire.MAX_CODE_BYTES} fit; pass data as arguments or files",
            size=code,
            maximum=wire.MAX_CODE_BYTES,
        )
    total = sum(memoryview(frame).nbytes for frame in payload)
    if total > wire.MAX_JOB_BYTES:
        raise TooLargeError(
            f"the job has {format_size(total)}, at most {format_size(wire.MAX_JOB_BYTES)} fit; "
            "put what jobs share into a data set of the template",
            size=total,
            maximum=wire.MAX_JOB_BYTES,
        )
    if not job.pickled and 0 in bytes(payload[0]):
        raise InvalidJobError("code: source text cannot hold a NUL byte; take it out")


def _check_files(names: Sequence[str]) -> None:
    for name in names:
        if name in {".", ".."} or "/" in name or "\0" in name or len(name.encode("utf-8", "replace")) > 255:
            raise InvalidJobError(
                f"files: {name!r:.60} is no plain file name; use a name of 1 to 255 bytes without '/'"
            )
    if len(set(names)) < len(names):
        raise InvalidJobError("files: a name stands twice; give each file a name of its own")


def _check_env(env: Mapping[str, str], allowed: Collection[str]) -> None:
    for name, value in env.items():
        if name not in allowed:
            raise InvalidJobError(
                f"env: this pool does not let a job set {name!r:.60}; allowed: {', '.join(sorted(allowed)) or 'none'} "
                "(env_allow in the pool's configuration)"
            )
        if "\0" in value:
            raise InvalidJobError(f"env: the value of {name} holds a NUL byte; take it out")


def _limits(asked: wire.JobLimits, template: Template) -> dict[str, Any]:
    """Each limit: what the job asks for, up to the template's maximum, else the template's default."""
    chosen: dict[str, Any] = {}
    for name in wire.JobLimits.__struct_fields__:
        wanted, most = getattr(asked, name), getattr(template.maximum, name)
        if wanted is not None and wanted > most:
            show = format_size if name in _SIZES else str
            raise LimitExceededError(
                f"limits.{name}: {show(wanted)} is more than this pool allows, {show(most)}; ask for less, "
                "or raise max_limits in the pool's configuration",
                limit=name,
                asked=wanted,
                maximum=most,
            )
        chosen[name] = getattr(template.limits, name) if wanted is None else wanted
    return chosen


def largest_answer(limits: TemplateLimits) -> int:
    """Bytes that an honest Done can have: two streams, an error, and the value."""
    return 2 * limits.output + limits.result + 2 * wire.MAX_CODE_BYTES
