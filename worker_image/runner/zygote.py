"""Single-threaded process with the preloaded imports and data sets; then it forks children (nursery.py)."""

from __future__ import annotations

import gc
import importlib
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pool.screen import Policy
from runner import child, datasets, outbox
from runner.confine import Confinement
from runner.datasets import DatasetError, Source
from runner.execution import UNSCREENED, Setting
from runner.nursery import FAILED, LOADED, LOADED_BODY, Nursery
from runner.rehearsal import ZYGOTE_ROUNDS, RehearsalError, parts, rehearse
from runner.survey import Grant


class PreloadError(Exception):
    """The template's preload cannot be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the template says of a worker's children."""

    modules: tuple[str, ...]
    datasets: tuple[Source, ...]
    scratch: Path
    screen: str
    isolation: str
    allow: frozenset[str]
    tmp_bytes: int
    tmp_inodes: int


def main(control: socket.socket, plan: Plan, grant: Grant) -> NoReturn:
    """Load, then serve forks until the runner goes away."""
    try:
        started = time.monotonic()
        _require_isolation(plan, grant)
        fetched = datasets.fetch(plan.datasets)  # while no library is imported here
        for name in plan.modules:
            _import(name)
        setting = Setting(
            datasets.unpack(fetched),
            Policy.from_json(plan.screen) if plan.screen else UNSCREENED,
            plan.scratch / child.WORK / outbox.DIRECTORY,
        )
        for part in parts() * ZYGOTE_ROUNDS:
            rehearse(part, setting)
        _require_single_thread()
        confinement = Confinement(grant, plan.allow, tmp_bytes=plan.tmp_bytes, tmp_inodes=plan.tmp_inodes)
        confinement.cover()
        nursery = Nursery(control, child.Cradle(plan.scratch, setting, confinement))
        gc.collect()
        gc.freeze()  # the collector would write to, and so copy, every page it looks at
        words = "\n".join((grant.level, *grant.missing))
        control.send(LOADED + LOADED_BODY.pack((time.monotonic() - started) * 1000) + words.encode())
        nursery.serve()
    except (PreloadError, DatasetError, RehearsalError) as error:
        control.send(FAILED + str(error).encode()[:2000])
    finally:
        os._exit(0)


def _require_isolation(plan: Plan, grant: Grant) -> None:
    if plan.isolation == "namespaces" and grant.level != "namespaces":
        raise PreloadError(
            f"this host refuses {'; '.join(grant.missing)}; see pool-admin doctor, or set isolation: auto"
        )


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:
        raise PreloadError(
            f"preload.modules names {name!r}, which does not import in this image ({type(error).__name__}: {error}); "
            "add it to the image's requirements and run pool-admin image build --requirements FILE, or take it out"
        ) from error


def _require_single_thread() -> None:
    """A fork copies one thread and every lock the others hold."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        raise PreloadError(
            f"the preloaded modules started {threads - 1} threads, and a process with threads cannot be forked safely; "
            "find the module that does and take it out of preload.modules"
        )
