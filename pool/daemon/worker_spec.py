"""From a Template to the spec of each of its workers, and to the policy of its pool. Only `spec` has side effects."""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pool._version import __version__
from pool.assets import seccomp_profile
from pool.config import Template
from pool.core.policy import PoolPolicy
from pool.daemon.datasets import Pins
from pool.daemon.self_tests import StartCheck
from pool.engines.base import Mount, WorkerSpec
from pool.errors import ConfigError
from pool.screen import Policy
from pool.users import uid_of

LINK_TARGET = "/run/pool"
DATASET_TARGET = "/datasets"
_NONE: Pins = MappingProxyType({})
SCRATCH = ("/tmp", "/dev/shm")  # noqa: S108 - inside the container, where each is a tmpfs of its own
#: The name of a worker's user.
USER = "job"
#: Each worker has a user id of its own, because the kernel counts some limits per user. The ids are above those that
#: distributions give to people, services and subordinate ranges.
_FIRST_UID = 2_000_000_000
_UIDS = 100_000
#: Each daemon of a host takes a range of its own, by its owner; all are below 2**31.
_BLOCKS = 1_400
#: On top of what a job may start: runner, libzmq's two threads, zygote, the parked and the running child with their
#: inits, and a few for processes that are ending.
_OWN_PROCESSES = 12


def uids(owner: str, *, used: int = 0, taken: Collection[int] = ()) -> Iterator[int]:
    """User ids for workers, without end. All pools of a daemon share one iterator.

    `used`: how many earlier daemons have used; `taken`: those of workers that are still there.
    """
    first = _FIRST_UID + zlib.crc32(owner.encode()) % _BLOCKS * _UIDS
    found = (first + number % _UIDS for number in itertools.count(used))
    return (uid for uid in found if uid not in taken)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpecFactory:
    """Makes the specs of the workers of one pool."""

    pool: str
    template: Template
    owner: str
    instance: str
    sources: str
    engine: str  #: by name
    image_id: str  #: of the template's image, at the start of the daemon
    uids: Iterator[int] = field(repr=False)
    isolates: bool = True  #: whether the engine has a lockdown that a worker can prove

    def spec(self, worker_id: str, link_directory: Path, pins: Pins = _NONE) -> WorkerSpec:
        """The spec of a new worker. `pins`: the content of its data sets."""
        template = self.template
        most = template.maximum
        uid = next(self.uids)
        return WorkerSpec(
            worker_id=worker_id,
            pool=self.pool,
            owner=self.owner,
            instance=self.instance,
            image=template.image,
            runtime=template.runtime,
            uid=uid,
            command=self._command(pins),
            mounts=(
                Mount(source=link_directory, target=LINK_TARGET),
                *_accounts(link_directory, uid),
                *_dataset_mounts(pins),
            ),
            memory_bytes=most.memory,
            cpus=template.cpus,
            processes=most.processes + _OWN_PROCESSES,
            tmp_bytes=most.tmp,
            tmp_inodes=template.tmp_inodes,
            nofile=template.nofile,
            apparmor=template.apparmor,
        )

    def digest(self) -> str:
        """Of all that the workers of this pool are made from, but for their data sets. A worker of another daemon that
        has the same digest could be one of this daemon's.
        """
        template = self.template
        made_from = (
            (__version__, self.sources, self.image_id, self._command(_NONE), seccomp_profile(), self.isolates),
            (template.maximum, template.cpus, template.tmp_inodes, template.nofile, template.apparmor),
            (self.engine, template.runtime, template.recycle.reuse_scope, template.limits),
        )
        return hashlib.sha256(repr(made_from).encode()).hexdigest()

    def start_check(self) -> StartCheck:
        """The checks that a new worker has to pass."""
        defaults = self.template.limits
        limits: dict[str, Any] = {name: getattr(defaults, name) for name in type(defaults).model_fields}
        return StartCheck(sources=self.sources, limits=limits, allow=self.template.allow, verified=self.isolates)

    def _command(self, pins: Pins) -> tuple[str, ...]:
        command = ["--link", f"{LINK_TARGET}/link.sock", "--heartbeat-s", str(self.template.heartbeat_s)]
        for directory in SCRATCH:
            command += ["--scratch", directory]
        command += ["--isolation", self.template.isolation, "--allow", ",".join(self.template.allow)]
        command += ["--tmp-bytes", str(self.template.limits.tmp), "--tmp-inodes", str(self.template.tmp_inodes)]
        command += ["--screen", self._screen()]
        if self.template.recycle.max_jobs == 1:
            command += ["--jobs", "1"]
        if self.template.preload.modules:
            command += ["--preload", ",".join(self.template.preload.modules)]
        for name, pin in pins.items():
            stamp = f"{pin.copied.size}-{pin.copied.mtime_ns}"
            command += ["--dataset", f"{name}={stamp}={_target(name, pin.path)}"]
        return tuple(command)

    def _screen(self) -> str:
        """The policy of the screen. Jobs may import the modules that the template preloads."""
        chosen = self.template.screen
        preloaded = tuple(sorted({name.partition(".")[0] for name in self.template.preload.modules}))
        return Policy(
            mode=chosen.mode,
            allow_modules=(*chosen.allow_modules, *preloaded),
            deny_modules=chosen.deny_modules,
            allow_names=chosen.allow_names,
            deny_names=chosen.deny_names,
        ).to_json()


def _accounts(directory: Path, uid: int) -> list[Mount]:
    """A passwd and a group file in which the worker's user has the name `job`."""
    texts = {
        "passwd": f"root:x:0:0:root:/:/nonexistent\n{USER}:x:{uid}:{uid}:{USER}:/tmp/work:/nonexistent\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/nonexistent\n",
        "group": f"root:x:0:\n{USER}:x:{uid}:\nnogroup:x:65534:\n",
    }
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="ascii")
        (directory / name).chmod(0o644)
    return [Mount(source=directory / name, target=f"/etc/{name}") for name in texts]


def _dataset_mounts(pins: Pins) -> list[Mount]:
    return [Mount(source=pin.copy, target=_target(name, pin.path)) for name, pin in pins.items()]


def _target(name: str, path: Path) -> str:
    return f"{DATASET_TARGET}/{name}{path.suffix}"


def _uid(user: str) -> str:
    try:
        return uid_of(user)
    except KeyError:
        raise ConfigError(f"backlog.weights: this host has no user {user!r}; give another name, or a uid") from None


def policy(template: Template, *, starts: int, first_starts: int | None = None) -> PoolPolicy:
    """The settings of a template that the core needs. Raises ConfigError for a user that this host does not have."""
    spare = template.size.spare
    return PoolPolicy(
        min_workers=template.size.min,
        max_workers=template.most_workers,
        spare=spare if isinstance(spare, int) else None,
        miss_rate=template.size.miss_rate if spare == "measured" else None,
        max_jobs=template.recycle.max_jobs,
        max_age_s=template.recycle.max_age_s,
        reuse_scope=template.recycle.reuse_scope,
        backlog_max=template.backlog.max_jobs,
        backlog_per_client=template.backlog.max_per_client,
        running_per_client=template.backlog.max_running_per_client,
        bytes_per_client=template.backlog.max_bytes_per_client,
        weights={_uid(user): weight for user, weight in template.backlog.weights.items()},
        poison_kills=template.poison.kills or 0,
        poison_window_s=template.poison.window_s,
        poison_refuse_s=template.poison.refuse_s,
        boot_timeout_s=template.boot_timeout_s,
        heartbeat_s=template.heartbeat_s,
        start_concurrency=starts,
        first_starts=first_starts,
    )
