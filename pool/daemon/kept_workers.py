"""The notes by which the next daemon adopts workers: one small file for each ready worker, beside its link.

    run_dir/w/7/link.sock   mounted into the container
    run_dir/w/7.json        not mounted: a worker can neither read its token here nor change its note

A note is written when the worker is ready and when it is bound to a client, and removed with the link. It is of one
boot of the host, because its times are monotonic.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from pool.status import ProbeRow

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class KeptWorker(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A ready worker."""

    worker_id: Annotated[str, msgspec.Meta(pattern=r"-[0-9]{1,12}\Z")]
    instance: str  #: of the daemon that has started it
    pool: str
    number: int  #: of its directory
    uid: int
    token: str  #: only its runner has it too
    template: str  #: digest of its template, image and sources
    started_at: float  #: monotonic seconds
    isolation: str
    missing: tuple[str, ...]  #: parts of the isolation that the host refuses
    rows: tuple[ProbeRow, ...]  #: of its lockdown probe
    client: str | None = None  #: the only one that it may serve; None: not bound
    boot: str = ""


class KeptWorkers:
    """The notes in one directory of links."""

    def __init__(self, links: Path) -> None:
        self._links = links
        self._boot = _BOOT_ID.read_text(encoding="ascii").strip()

    def write(self, worker: KeptWorker) -> None:
        """Write a note, or replace it as a whole. Raises OSError."""
        path = self._path(worker.number)
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_bytes(msgspec.json.encode(msgspec.structs.replace(worker, boot=self._boot)))
        fresh.replace(path)

    def read(self) -> Iterator[KeptWorker]:
        """The valid notes of this boot whose link directory exists."""
        for path in sorted(self._links.glob("*.json")):
            try:
                kept = msgspec.json.decode(path.read_bytes(), type=KeptWorker)
            except (OSError, msgspec.MsgspecError):
                continue
            directory = self._links / str(kept.number)
            if kept.boot == self._boot and path == self._path(kept.number) and directory.is_dir():
                yield kept

    def remove(self, number: int) -> None:
        """A note that cannot be removed is of no worker to the next daemon."""
        with contextlib.suppress(OSError):
            self._path(number).unlink(missing_ok=True)

    def keep_only(self, numbers: Collection[int]) -> None:
        """Remove the notes and link directories of all workers but these."""
        kept = {str(number) for number in numbers}
        for path in self._links.iterdir():
            if path.stem in kept:
                continue
            with contextlib.suppress(OSError):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._links / f"{number}.json"


def new_token() -> str:
    """For one worker; 128 bits."""
    return secrets.token_hex(16)
