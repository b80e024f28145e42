"""The worker image: the runner's tree on top of the libraries, with labels for version and digest."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
from docker.errors import APIError

from pool import assets
from pool._version import __version__
from pool.assets import runner_tree
from pool.engines.base import RUNNER_LABEL, SOURCES_LABEL, ImageFacts
from pool.engines.connection import SDK_ERRORS, Connections, address, translate
from pool.engines.docker import image_facts
from pool.images.base import Base, find_base
from pool.images.libraries import ensure_libraries
from pool.images.steps import BUILD_TIMEOUT_S, Progress, docker_build, fingerprint, image_labels
from pool.sources import digest
from pool.wire import PROTOCOL_VERSION

DEFAULT_TAG = "pool-worker:latest"

PROTOCOL_LABEL = "pool.runner.protocol"
PYTHON_LABEL = "pool.python"
RECIPE_LABEL = "pool.image.recipe"
STAGE_LABEL = "pool.image.stage"


def build(
    tag: str = DEFAULT_TAG, *, progress: Progress, base: str | None = None, python: str | None = None,
    requirements: Path | None = None, force: bool = False,
) -> ImageFacts:  # fmt: skip
    """Build the worker image, unless it is up to date.

    `base`: take this image's Python. `python`: one of PYTHONS; None: this interpreter's version, where it can be had.
    `requirements`: libraries for the jobs, instead of the default ones. `force`: make libraries and worker again, to
    get newer versions of packages that the requirements do not fix.
    """
    connections = Connections(timeout_s=BUILD_TIMEOUT_S)
    try:
        with connections.client() as client, _under_way() as lock:
            ground = find_base(client, base, python=python, progress=progress)
            facts = _build(client, tag, ground, requirements=requirements, force=force, progress=progress)
            if _is_alone(lock):
                _clear_up(client)
            return facts
    except SDK_ERRORS as error:
        raise translate(error, f"build the image {tag}", image=tag) from error
    finally:
        connections.close()


def _build(
    client: docker.APIClient, tag: str, ground: Base, *, requirements: Path | None, force: bool, progress: Progress
) -> ImageFacts:
    requirements = requirements or assets.worker_image() / "requirements.txt"
    libraries = ensure_libraries(client, ground, requirements, force=force, progress=progress)
    tree = runner_tree()
    labels = labels_of(tree, ground, libraries)
    if not force and (image_labels(client, tag) or {}).get(RECIPE_LABEL) == labels[RECIPE_LABEL]:
        progress(f"worker: {tag}, up to date")
    else:
        progress(f"worker: building {tag}")
        arguments = {"BASE": ground.name, "LIBRARIES": libraries}
        _build_worker(client, tag, tree=tree, arguments=arguments, labels=labels, progress=progress)
    return image_facts(client, tag)


def labels_of(tree: dict[str, bytes], base: Base, libraries: str) -> dict[str, str]:
    sources = digest(tree)
    dockerfile = (assets.worker_image() / "Dockerfile").read_bytes()
    return {
        RUNNER_LABEL: __version__,
        SOURCES_LABEL: sources,
        PROTOCOL_LABEL: str(PROTOCOL_VERSION),
        PYTHON_LABEL: base.python_full,
        RECIPE_LABEL: fingerprint(sources, __version__, libraries, dockerfile),
    }


def _build_worker(
    client: docker.APIClient, tag: str, *, tree: dict[str, bytes], arguments: dict[str, str], labels: dict[str, str],
    progress: Progress,
) -> None:  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="pool-worker-") as scratch:
        context = Path(scratch)
        for name in ("Dockerfile", "assemble.py"):
            shutil.copy(assets.worker_image() / name, context)
        write_tree(tree, context / "pool")
        docker_build(client, context, tag=tag, arguments=arguments, labels=labels, progress=progress)


def write_tree(tree: dict[str, bytes], directory: Path) -> None:
    for name, data in tree.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@contextlib.contextmanager
def _under_way() -> Iterator[int | None]:
    """Hold a lock that the builds of one Engine share, on the directory of its socket. None: no socket on this host."""
    directory = Path(address().removeprefix("unix://")).parent
    if not address().startswith("unix://") or not directory.is_dir():
        yield None
        return
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield lock
    finally:
        os.close(lock)


def _is_alone(lock: int | None) -> bool:
    """Whether no other build of this Engine is under way. None begins while the lock is held."""
    try:
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear_up(client: docker.APIClient) -> None:
    """Remove the stages of the build, and the worker image that had the tag before unless a worker still runs it.

    Another build may be using a stage, so this is left to the last of several. The Engine serves one removal at a time.
    What it refuses now is removed by the next build.
    """
    with contextlib.suppress(APIError):
        client.prune_images(filters={"dangling": True, "label": STAGE_LABEL})  # type: ignore[no-untyped-call]
        for image in client.images(filters={"dangling": True, "label": RECIPE_LABEL}):
            with contextlib.suppress(APIError):
                if _is_worker_image(client, image["Id"]):
                    client.remove_image(image["Id"])


def _is_worker_image(client: docker.APIClient, image: str) -> bool:
    """Its last step sets our labels. An image that a user has built from one has them too, and steps after it."""
    last, *_ = client.history(image)  # type: ignore[no-untyped-call]
    return "LABEL pool." in last["CreatedBy"]
