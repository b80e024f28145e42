"""Copies an image from the Docker Engine of this host, where there is one, to an engine without an image store."""

from __future__ import annotations

import tempfile
from pathlib import Path

from docker.errors import ImageNotFound

from pool.engines.archive import Archive
from pool.engines.connection import SDK_ERRORS, Connections, translate
from pool.engines.roots import Image, Roots

#: An Engine that does not answer for so long counts as absent.
ASK_TIMEOUT_S = 5
#: The time until it sends the first byte of a large image.
SAVE_TIMEOUT_S = 300


def docker_image(name: str) -> Image | None:
    """The image of this name in the Docker Engine; None if it has none, or does not answer."""
    connections = Connections(timeout_s=ASK_TIMEOUT_S)
    try:
        with connections.client() as client:
            found = client.inspect_image(name)  # type: ignore[no-untyped-call]
    except (ImageNotFound, *SDK_ERRORS):
        return None
    finally:
        connections.close()
    config = found["Config"]
    return Image(
        id=found["Id"],
        entrypoint=tuple(config.get("Entrypoint") or ()),
        environment=tuple(config.get("Env") or ()),
        labels=dict(config.get("Labels") or {}),
        size_bytes=found["Size"],
        copied=True,
    )


def copy(name: str, image: Image, roots: Roots) -> Image:
    """Unpack the image of the Docker Engine. Raises EngineError."""
    return roots.add(name, image, lambda root: _fill(image.id, root))


def _fill(image_id: str, root: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=root.parent, prefix="archive-", suffix=".new") as file:
        connections = Connections(timeout_s=SAVE_TIMEOUT_S)
        try:
            with connections.client() as client:
                for piece in client.get_image(image_id):
                    file.write(piece)
        except SDK_ERRORS as error:
            raise translate(error, f"save the image {image_id}", image=image_id) from error
        finally:
            connections.close()
        file.flush()
        Archive(Path(file.name)).unpack(root)
