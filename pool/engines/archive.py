"""Image archives as `docker save` writes them: their configuration, and their file system layer by layer.

archive.tar   manifest.json: [{"Config": NAME, "RepoTags": [...], "Layers": [NAME, ...]}]
              the named files, wherever they are in it
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import IO, Any

from pool.engines.roots import Image
from pool.errors import EngineError

#: manifest.json and the configuration; both are a few KiB.
MAX_DOCUMENT_BYTES = 4 << 20
_PIECE_BYTES = 1 << 20


class Archive:
    """The first image of an archive. Raises EngineError for a file that is not one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with tarfile.open(path) as outer:
                (manifest, *_) = json.loads(_document(outer, "manifest.json"))
                config = _document(outer, manifest["Config"])
            self._layers: list[str] = list(manifest["Layers"])
            self.name: str = next(iter(manifest.get("RepoTags") or ()), "")
            self._id = f"sha256:{hashlib.sha256(config).hexdigest()}"
            self._config: dict[str, Any] = json.loads(config).get("config") or {}
        except OSError as error:
            raise EngineError(f"the image archive {path} cannot be read: {error.strerror or error}") from error
        except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineError(
                f"{path} is not an image archive as `docker save` writes it: {error!r}; write it with "
                "`docker save --output FILE IMAGE`"
            ) from error

    def image(self, image_id: str = "") -> Image:
        """`image_id`: its id in a Docker Engine; without it, the digest of its configuration is used."""
        return Image(
            id=image_id or self._id,
            entrypoint=tuple(self._config.get("Entrypoint") or ()),
            environment=tuple(self._config.get("Env") or ()),
            labels=dict(self._config.get("Labels") or {}),
        )

    def unpack(self, directory: Path) -> None:
        """Lay out its file system. Needs root. Raises EngineError."""
        with tarfile.open(self._path) as outer:
            for name in self._layers:
                _unpack(_member(outer, name), directory)


def _unpack(layer: IO[bytes], directory: Path) -> None:
    command = [sys.executable, "-m", "pool.engines.untar", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            shutil.copyfileobj(layer, process.stdin, _PIECE_BYTES)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has said why
        words = process.stderr.read().decode(errors="replace").strip().splitlines()
    if process.returncode != 0:
        last = words[-1] if words else f"exit code {process.returncode}"
        raise EngineError(f"a layer of the image cannot be unpacked into {directory}: {last[:300]}")


def _document(outer: tarfile.TarFile, name: str) -> bytes:
    data = _member(outer, name).read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"{name} is larger than {MAX_DOCUMENT_BYTES} bytes")
    return data


def _member(outer: tarfile.TarFile, name: str) -> IO[bytes]:
    found = outer.extractfile(name)
    if found is None:
        raise KeyError(name)
    return found
