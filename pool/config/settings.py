"""The settings: frozen, strict, complete. Every key has a default and a range; attributes are named as in the file.

    Settings ─┬─ sandbox: SandboxSettings
              ├─ daemon:  DaemonSettings
              ├─ alerts:  AlertSettings
              ├─ metrics: MetricsSettings
              └─ pools:   name -> Template ─┬─ size, recycle, preload, backlog, poison
                                            └─ limits (what a job gets), max_limits (the most it may ask for)

Sizes are kept as bytes. Values from a file arrive here as text, and each field reads its own (see `fields.py`).
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from pool.config import fields
from pool.config.fields import OrNull
from pool.units import format_size

DAY_S = 86_400
MIB = 1 << 20

PoolName = Annotated[
    str, fields.text(r"[a-z][a-z0-9_-]{0,23}", words="1 to 24 of a-z, 0-9, _ and -, beginning with a letter")
]
DatasetName = Annotated[
    str, fields.text(r"[A-Za-z_][A-Za-z0-9_]{0,63}", words="1 to 64 letters, digits and _, not beginning with a digit")
]
VariableName = Annotated[
    str,
    fields.text(r"[A-Za-z_][A-Za-z0-9_]{0,127}", words="1 to 128 letters, digits and _, not beginning with a digit"),
]
GroupName = Annotated[str, fields.text(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}", words="the name of a group")]
UserName = Annotated[str, fields.text(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}", words="the name of a user, or a uid")]
RuntimeName = Annotated[str, fields.text(r"[A-Za-z0-9][A-Za-z0-9._-]*", words="the name of an OCI runtime")]
ProfileName = Annotated[str, fields.text(r"[A-Za-z0-9][A-Za-z0-9._-]*", words="the name of a profile")]

# Kinds of limits, which `limits` and `max_limits` share. Output and result stay well under the cap of one wire message.
JobSeconds = Annotated[float, fields.seconds(0.01, 7 * DAY_S)]
Memory = Annotated[int, fields.size("32m", "1t")]
Scratch = Annotated[int, fields.size("64k", "64g")]
Output = Annotated[int, fields.size("1k", "64m")]
Result = Annotated[int, fields.size("1k", "128m")]
Processes = Annotated[int, fields.whole(1, 4096)]

Share = Annotated[float, fields.number(0, 1)]
Argument = Annotated[str, fields.text(r"[^\x00]+", words="text of 1 to 4096 characters", max_length=4096)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SandboxSettings(_Section):
    enabled: Annotated[bool, fields.flag()] = True
    fallback: Literal["local", "refuse"] = "refuse"


class DaemonSettings(_Section):
    run_dir: Annotated[Path, fields.directory()] = Path("/run/pool")
    state_dir: Annotated[Path, fields.directory()] = Path("/var/lib/pool")
    image_dir: Annotated[Annotated[Path, fields.directory()] | None, OrNull] = None
    durability: Literal["crash", "power", "none"] = "crash"
    journal_bytes: Annotated[int, fields.size("16m", "16t")] = 4096 * MIB
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    start_concurrency: Annotated[int | Literal["auto"], fields.whole_or("auto", low=1, high=64)] = "auto"
    drain_timeout_s: Annotated[float, fields.seconds(0.1, DAY_S)] = 30.0
    result_ttl_s: Annotated[float, fields.seconds(1, 7 * DAY_S)] = 600.0
    result_bytes: Annotated[int, fields.size("1m", "1t")] = 256 * MIB
    submit_mode: Annotated[str, fields.text(r"0[0-7]{3}", words="four octal digits, such as 0660")] = "0660"
    submit_group: Annotated[GroupName | None, OrNull] = None

    @property
    def starts(self) -> int:
        """How many workers may be starting at the same time, at most: with `auto` one for each core."""
        return min(64, len(os.sched_getaffinity(0))) if self.start_concurrency == "auto" else self.start_concurrency

    @property
    def first_starts(self) -> int | None:
        """With `auto`, how many may start at the same time before anything is measured: one for two cores."""
        return max(1, self.starts // 2) if self.start_concurrency == "auto" else None

    @property
    def images(self) -> Path:
        """The directory with the images of the oci engine."""
        return self.image_dir or self.state_dir / "images"

    @property
    def submit_bits(self) -> int:
        """`submit_mode` as a number for chmod."""
        return int(self.submit_mode, 8)


class AlertSettings(_Section):
    """Thresholds for alerts in `status`, in the log and by the command. None: no alert of this kind."""

    window_s: Annotated[float, fields.seconds(1, DAY_S)] = 300.0
    min_jobs: Annotated[int, fields.whole(1, 2048)] = 20
    run_p95_s: Annotated[JobSeconds | None, OrNull] = 10.0
    overhead_p95_s: Annotated[JobSeconds | None, OrNull] = 0.5
    queue_p95_s: Annotated[JobSeconds | None, OrNull] = None
    miss_rate: Annotated[Share | None, OrNull] = None
    failed_start_rate: Annotated[Share | None, OrNull] = 0.1
    command: Annotated[tuple[Argument, ...], Field(max_length=64)] = ()
    command_timeout_s: Annotated[float, fields.seconds(0.1, 600)] = 10.0


class MetricsSettings(_Section):
    """The endpoint for Prometheus; without a port there is none."""

    port: Annotated[Annotated[int, fields.whole(0, 65535)] | None, OrNull] = None
    address: Annotated[str, fields.text(r"[0-9a-fA-F.:]+", words="an IP address", max_length=45)] = "127.0.0.1"


class Size(_Section):
    min: Annotated[int, fields.whole(1, 256)] = 2
    max: Annotated[int, fields.whole(1, 256)] = 8
    spare: Annotated[int | Literal["auto", "measured"], fields.whole_or("auto", "measured", low=0, high=256)] = "auto"
    miss_rate: Annotated[float, fields.number(0.0001, 0.5)] = 0.01
    memory: Annotated[Annotated[int, fields.size("32m", "16t")] | None, OrNull] = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise _setting(f"min is {self.min} and max is {self.max}; allowed: min up to max")
        if isinstance(self.spare, int) and self.spare > self.max:
            raise _setting(f"spare is {self.spare} and max is {self.max}; allowed: spare up to max")
        return self


class Recycle(_Section):
    max_jobs: Annotated[int, fields.whole(1, 1_000_000)] = 100
    max_age_s: Annotated[float, fields.seconds(1, 30 * DAY_S)] = 3600.0
    reuse_scope: Literal["client", "any"] = "client"


class Preload(_Section):
    modules: Annotated[tuple[Annotated[str, fields.module()], ...], Field(max_length=64)] = ("numpy", "pandas")
    datasets: Annotated[dict[DatasetName, Annotated[Path, fields.data_file()]], Field(max_length=64)] = {}


ModuleName = Annotated[str, fields.module()]
Permission = Annotated[str, fields.text("subprocess|proc", words="subprocess or proc")]


class Screen(_Section):
    """The screen of a template. A single word in the file is its mode."""

    mode: Literal["strict", "standard", "off"] = "standard"
    allow_modules: Annotated[tuple[ModuleName, ...], Field(max_length=256)] = ()
    deny_modules: Annotated[tuple[ModuleName, ...], Field(max_length=256)] = ()
    allow_names: Annotated[tuple[VariableName, ...], Field(max_length=256)] = ()
    deny_names: Annotated[tuple[VariableName, ...], Field(max_length=256)] = ()


class TemplateLimits(_Section):
    wall_s: JobSeconds = 60.0
    cpu_s: JobSeconds = 60.0
    memory: Memory = 512 * MIB
    tmp: Scratch = 64 * MIB
    output: Output = 1 * MIB
    result: Result = 16 * MIB
    processes: Processes = 64


class MaxLimits(_Section):
    """The most a job may ask for; None: no more than the default of `limits`."""

    wall_s: Annotated[JobSeconds | None, OrNull] = None
    cpu_s: Annotated[JobSeconds | None, OrNull] = None
    memory: Annotated[Memory | None, OrNull] = None
    tmp: Annotated[Scratch | None, OrNull] = None
    output: Annotated[Output | None, OrNull] = None
    result: Annotated[Result | None, OrNull] = None
    processes: Annotated[Processes | None, OrNull] = None

    def given(self) -> dict[str, float]:
        return self.model_dump(exclude_none=True)


class Backlog(_Section):
    max_jobs: Annotated[int, fields.whole(1, 1_000_000)] = 10_000
    max_per_client: Annotated[int, fields.whole(1, 1_000_000)] = 10_000
    max_bytes_per_client: Annotated[int, fields.size("1m", "1t")] = 1024 * MIB
    max_running_per_client: Annotated[Annotated[int, fields.whole(1, 256)] | None, OrNull] = None
    weights: Annotated[dict[UserName, Annotated[float, fields.number(0.01, 100)]], Field(max_length=256)] = {}
    queue_timeout_s: Annotated[JobSeconds | None, OrNull] = None


class Poison(_Section):
    kills: Annotated[Annotated[int, fields.whole(0, 100)] | None, OrNull] = 3
    window_s: Annotated[float, fields.seconds(1, 30 * DAY_S)] = 3600.0
    refuse_s: Annotated[float, fields.seconds(1, 30 * DAY_S)] = 3600.0


class Template(_Section):
    engine: Literal["auto", "docker", "oci", "local"] = "auto"
    image: Annotated[
        str, fields.text(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", words="the name of an image, such as name:tag")
    ] = "pool-worker:latest"
    runtime: Annotated[RuntimeName | None, OrNull] = None
    size: Size = Size()
    recycle: Recycle = Recycle()
    preload: Preload = Preload()
    limits: TemplateLimits = TemplateLimits()
    max_limits: MaxLimits = MaxLimits()
    backlog: Backlog = Backlog()
    poison: Poison = Poison()
    screen: Screen = Screen()
    isolation: Literal["auto", "namespaces", "plain"] = "auto"
    allow: Annotated[tuple[Permission, ...], Field(max_length=2)] = ()
    apparmor: Annotated[ProfileName | None, OrNull] = None
    cpus: Annotated[float, fields.number(0.1, 64)] = 1.0
    boot_timeout_s: Annotated[float, fields.seconds(1, 3600)] = 60.0
    heartbeat_s: Annotated[float, fields.seconds(0.1, 3600)] = 2.0
    env_allow: Annotated[tuple[VariableName, ...], Field(max_length=64)] = ()
    tmp_inodes: Annotated[int, fields.whole(64, 10_000_000)] = 4096
    nofile: Annotated[int, fields.whole(64, 1_048_576)] = 256

    @cached_property
    def maximum(self) -> TemplateLimits:
        """The most a job may ask for, complete."""
        return self.limits.model_copy(update=self.max_limits.given())

    @property
    def most_workers(self) -> int:
        """`size.max`, or fewer if `size.memory` has no room for so many."""
        budget = self.size.memory
        return self.size.max if budget is None else min(self.size.max, budget // self.maximum.memory)

    @model_validator(mode="after")
    def _has_room_for_min(self) -> Self:
        needed = self.size.min * self.maximum.memory
        if self.size.memory is not None and self.size.memory < needed:
            raise _setting(
                f"size.memory is {format_size(self.size.memory)}; {self.size.min} workers (size.min) with the memory "
                f"limit of {format_size(self.maximum.memory)} each may take {format_size(needed)}; allowed: that or "
                "more, or a smaller size.min or limits.memory"
            )
        return self

    @field_validator("screen", mode="before")
    @classmethod
    def _mode_alone(cls, given: object) -> object:
        return {"mode": given} if isinstance(given, str) else given

    @field_validator("max_limits", mode="after")
    @classmethod
    def _not_below_the_default(cls, maximum: MaxLimits, info: ValidationInfo) -> MaxLimits:
        limits: TemplateLimits | None = info.data.get("limits")
        if limits is None:  # it has problems of its own
            return maximum
        low = [(name, most) for name, most in maximum.given().items() if most < getattr(limits, name)]
        if low:
            raise ValidationError.from_exception_data("max_limits", [_below(*each, limits=limits) for each in low])
        return maximum


class Settings(_Section):
    sandbox: SandboxSettings = SandboxSettings()
    daemon: DaemonSettings = DaemonSettings()
    alerts: AlertSettings = AlertSettings()
    metrics: MetricsSettings = MetricsSettings()
    pools: Annotated[dict[PoolName, Template], Field(min_length=1, max_length=64)] = {"default": Template()}


def _setting(message: str) -> PydanticCustomError:
    return PydanticCustomError("setting", "{message}", {"message": message})


def _below(name: str, most: float, *, limits: TemplateLimits) -> InitErrorDetails:
    default = getattr(limits, name)
    if name in ("memory", "tmp", "output", "result"):
        wrong = f"{format_size(int(most))} is below the default in limits; allowed: {format_size(default)} or more"
    else:
        wrong = f"{most:g} is below the default in limits; allowed: {default:g} or more"
    return InitErrorDetails(type=_setting(wrong), loc=(name,), input=most)
