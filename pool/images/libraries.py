"""The libraries image: Python and the installed libraries, without the runner.

Made anew when the base, the requirements or the recipe change, and found by its tag otherwise: downloading and laying
out takes a minute, and the runner changes far more often than the libraries do.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import docker

from pool import assets
from pool.errors import EngineError
from pool.images.base import Base
from pool.images.steps import Progress, docker_build, fingerprint, has_image, run

#: What the runner imports, and the time zones for the C library and zoneinfo.
RUNNER_NEEDS = ("cloudpickle>=3.1", "msgpack>=1.2.4", "msgspec>=0.19", "pyzmq>=26.2", "tzdata")

#: What reads parquet and feather, for data sets; laid out apart from the libraries of the jobs, who do not see it.
LOADER_NEEDS = ("pyarrow>=18",)

#: The oldest C library that wheels are still built for.
_OLDEST_LIBC_MINOR = 5


def ensure_libraries(
    client: docker.APIClient, base: Base, requirements: Path, *, force: bool, progress: Progress
) -> str:
    """The tag of the libraries image for this base and these requirements."""
    sources = assets.worker_image()
    recipe = fingerprint(
        base.id,
        requirements.read_bytes(),
        "\n".join((*RUNNER_NEEDS, *LOADER_NEEDS)),
        (sources / "base" / "Dockerfile").read_bytes(),
        (sources / "assemble.py").read_bytes(),
    )
    tag = f"pool-libraries:{recipe[:12]}"
    if has_image(client, tag) and not force:
        progress(f"libraries: {tag}, present")
        return tag
    with tempfile.TemporaryDirectory(prefix="pool-libraries-") as scratch:
        context = Path(scratch)
        shutil.copy(sources / "base" / "Dockerfile", context)
        shutil.copy(sources / "assemble.py", context)
        download(base, ("--requirement", str(requirements), *RUNNER_NEEDS), context / "packages", progress=progress)
        (context / "loaders").mkdir()
        if (context / "packages" / "pandas").is_dir():  # a table becomes a frame, or nothing
            download(base, ("--no-deps", *LOADER_NEEDS), context / "loaders", progress=progress)
        progress(f"libraries: laying out {tag}")
        labels = {"pool.image.libraries": recipe}
        docker_build(client, context, tag=tag, arguments={"BASE": base.name}, labels=labels, progress=progress)
    return tag


def download(base: Base, wanted: Sequence[str], target: Path, *, progress: Progress) -> None:
    """Install wheels for the image's Python into `target`, with the user's own pip and its configuration."""
    if importlib.util.find_spec("pip") is None:
        raise EngineError(
            "this environment has no pip, which downloads the libraries of the image: "
            f"`uv pip install pip` or `{sys.executable} -m ensurepip`"
        )
    progress(f"libraries: downloading for Python {base.python} on {base.machine}")
    command = [
        sys.executable, "-m", "pip", "install", "--target", str(target),
        "--only-binary=:all:", "--implementation=cp", f"--python-version={base.python}",
        *(f"--platform={name}" for name in platforms(base)),
        "--no-compile", "--no-input", "--disable-pip-version-check", "--root-user-action=ignore", "--progress-bar=off",
        *wanted,
    ]  # fmt: skip
    remedy = f"see whether all of {' '.join(wanted)} has wheels for Python {base.python}, and whether pip has a network"
    run(command, progress=progress, remedy=remedy)


def platforms(base: Base) -> list[str]:
    """The wheel platforms that the base's C library can run, the newest first."""
    major, minor = base.libc
    names = [f"manylinux_{major}_{step}" for step in range(minor, _OLDEST_LIBC_MINOR - 1, -1)]
    return [f"{name}_{base.machine}" for name in (*names, "manylinux2014", "manylinux2010", "manylinux1")]
