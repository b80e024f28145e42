"""Images as unpacked file systems, for the engine without an image store.

    directory/  lock                  held while an image is added
                names/<name>.json     an image: id, labels, command line, the directory of its root
                roots/<digest>/       the file system, which all its containers share read-only
                roots/<digest>.new/   one that is being filled

An image is added whole or not at all. Several daemons may use one directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec

from pool.engines.base import RUNNER_LABEL, SOURCES_LABEL, ImageFacts
from pool.engines.bundle import Root
from pool.errors import EngineError, EngineUnavailableError, ImageMissingError

#: Files that a Docker Engine makes for each container. Here all have the same, without facts about the host.
ETC = {
    "hostname": "worker\n",
    "hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "resolv.conf": "nameserver 127.0.0.1\n",
}
#: Mount points of every container. A root is not changed later, so they are made when it is filled.
MOUNT_POINTS = ("dev", "proc", "sys", "tmp")


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image without its files."""

    id: str  #: sha256:<64 hex digits>
    entrypoint: tuple[str, ...]
    environment: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    size_bytes: int = 0
    copied: bool = (
        False  #: copied from a Docker Engine, and copied again when the Engine has another image of this name
    )

    @property
    def facts(self) -> ImageFacts:
        runner, sources = (self.labels.get(label, "") for label in (RUNNER_LABEL, SOURCES_LABEL))
        return ImageFacts(id=self.id, runner=runner, sources=sources, size_bytes=self.size_bytes)


class Roots:
    """The images in one directory. Reading takes no lock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def find(self, name: str) -> Image | None:
        """The image of this name, None if there is none or its root is gone. Raises EngineError for a damaged entry."""
        path = self._entry(name)
        try:
            image = msgspec.json.decode(path.read_bytes(), type=Image)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise EngineError(f"the image {name} cannot be read from {path}: {error}; remove this file") from error
        return image if self._root(image.id).is_dir() else None

    def root(self, name: str) -> Root:
        """The file system of an image. Raises ImageMissingError."""
        image = self.find(name)
        if image is None:
            raise missing(name, self.directory)
        return Root(path=self._root(image.id), entrypoint=image.entrypoint, environment=image.environment)

    def add(self, name: str, image: Image, fill: Callable[[Path], None]) -> Image:
        """Add an image under a name; `fill` writes its files into an empty directory, unless they are there already.

        Raises EngineError; then the name still refers to the image before.
        """
        with self._locked():
            root = self._root(image.id)
            if not root.is_dir():
                self._fill(root, fill)
            image = msgspec.structs.replace(image, size_bytes=image.size_bytes or size_of(root))
            entry = self._entry(name)
            fresh = entry.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode(image))
            fresh.replace(entry)
            self._drop_unused()
        return image

    def _fill(self, root: Path, fill: Callable[[Path], None]) -> None:
        fresh = root.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o755)
        try:
            fill(fresh)
            complete(fresh)
            fresh.rename(root)
        except OSError as error:
            raise EngineError(f"the image cannot be unpacked into {root}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            for name in ("names", "roots"):
                (self.directory / name).mkdir(parents=True, exist_ok=True)
            self.directory.chmod(0o700)
            held = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EngineUnavailableError(
                f"the directory of images {self.directory} cannot be used: {error.strerror}; make it writable, or name "
                "another one in daemon.image_dir"
            ) from error
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)

    def _drop_unused(self) -> None:
        """Remove the roots that no name refers to and no container uses."""
        named = {msgspec.json.decode(path.read_bytes(), type=Image).id for path in self._entries()}
        keep = {self._root(each) for each in named}
        for root in (self.directory / "roots").iterdir():
            if root not in keep and not is_mounted(root):
                shutil.rmtree(root, ignore_errors=True)

    def _entries(self) -> list[Path]:
        return sorted((self.directory / "names").glob("*.json"))

    def _entry(self, name: str) -> Path:
        return self.directory / "names" / f"{quote(full_name(name), safe='')}.json"

    def _root(self, image_id: str) -> Path:
        digest = image_id.removeprefix("sha256:")
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise EngineError(f"{image_id!r} is not the id of an image")
        return self.directory / "roots" / digest


def missing(name: str, directory: Path) -> ImageMissingError:
    return ImageMissingError(
        f"there is no image {name!r} in {directory}; build it with `pool-admin image build`, or unpack an archive that "
        "`docker save` has written with `pool-admin image unpack FILE`",
        image=name,
    )


def full_name(name: str) -> str:
    """The name with the tag that a Docker Engine adds: `a` is `a:latest`, `host:5000/a` is `host:5000/a:latest`."""
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


def complete(root: Path) -> None:
    """Add the files and mount points that every container needs. Raises OSError."""
    for place in (*MOUNT_POINTS, "etc"):
        (root / place).mkdir(exist_ok=True)
    for name, text in ETC.items():
        path = root / "etc" / name
        path.unlink(missing_ok=True)  # it may be a link
        path.write_text(text, encoding="ascii")
        path.chmod(0o644)


def size_of(root: Path) -> int:
    """The bytes of all files together."""
    return sum(entry.stat(follow_symlinks=False).st_size for entry in _files(root))


def _files(directory: Path) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        else:
            yield entry


def is_mounted(root: Path) -> bool:
    """Whether a process of this host has the directory mounted, in any mount namespace."""
    tail = f"/{root.parent.name}/{root.name} "  # the rest of the path depends on where its file system is mounted
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if tail in (process / "mountinfo").read_text(encoding="utf-8", errors="replace"):
                return True
    return False
