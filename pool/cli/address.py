"""Where the daemon is, from the shared options: `admin.sock` for questions, `submit.sock` beside it for jobs.

What was typed decides; where nothing was, `pool.client.endpoint` looks into the environment.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """None means the client's own default."""

    admin: str | None = None
    submit: str | None = None


def resolve(endpoint: str | None, run_dir: str | None) -> Address:
    """Both endpoints, from `--endpoint` and `--run-dir` as typed; the first is the more exact word."""
    if endpoint is not None:
        directory, slash, _ = endpoint.rpartition("/")
        return Address(admin=endpoint, submit=f"{directory}{slash}submit.sock")
    if run_dir is not None:
        directory = run_dir.rstrip("/")
        return Address(admin=f"{directory}/admin.sock", submit=f"{directory}/submit.sock")
    return Address()
