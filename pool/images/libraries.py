"""The libraries image: Python and the installed libraries, without the runner.

It is made again when the base, the requirements or the recipe change, and otherwise found by its tag: downloading and
laying out take a minute, and the runner changes far more often than the libraries.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import docker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from pool import assets
from pool.errors import EngineError
from pool.images.base import Base
from pool.images.steps import Progress, docker_build, fingerprint, has_image, run

#: The oldest C library for which wheels are still built.
_OLDEST_LIBC_MINOR = 5

#: Sets of libraries that we choose and lock, for users without requirements of their own.
PROFILES = ("default", "science")

_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s\\;]+)", re.MULTILINE)
_ANY = Requirement("any")


def profile(name: str) -> Path:
    """The requirements of one of PROFILES."""
    return assets.worker_image() / ("requirements.txt" if name == "default" else f"requirements-{name}.txt")


def ensure_libraries(
    client: docker.APIClient, base: Base, requirements: Path, *, force: bool, progress: Progress
) -> str:
    """The tag of the libraries image for this base and these requirements."""

    def build(tag: str, recipe: str, context: Path) -> None:
        labels = {"pool.image.libraries": recipe}
        docker_build(client, context, tag=tag, arguments={"BASE": base.name}, labels=labels, progress=progress)

    present = partial(has_image, client)
    return laid_out(base, requirements, present=present, build=build, force=force, progress=progress)


def laid_out(
    base: Base,
    requirements: Path,
    *,
    present: Callable[[str], bool],
    build: Callable[[str, str, Path], None],
    force: bool,
    progress: Progress,
) -> str:
    """The tag of the libraries. They are laid out if they are missing, or with `force`. Raises EngineError.

    `present`: whether there is an image of this tag. `build`: makes it, from the tag, the recipe and the directory that
    `prepare` has filled.
    """
    recipe, tag = recipe_of(base, requirements)
    if present(tag) and not force:
        progress(f"libraries: {tag}, present")
        return tag
    with tempfile.TemporaryDirectory(prefix="pool-libraries-") as scratch:
        context = Path(scratch)
        prepare(base, requirements, context, progress=progress)
        progress(f"libraries: laying out {tag}")
        build(tag, recipe, context)
    return tag


def recipe_of(base: Base, requirements: Path) -> tuple[str, str]:
    """The digest of all inputs of the libraries, and the tag of their image."""
    sources = assets.worker_image()
    recipe = fingerprint(
        base.id,
        requirements.read_bytes(),
        *(path.read_bytes() for path in _inputs(base.python, requirements)),
        (sources / "base" / "Dockerfile").read_bytes(),
        (sources / "assemble.py").read_bytes(),
    )
    return recipe, f"pool-libraries:{recipe[:12]}"


def prepare(base: Base, requirements: Path, context: Path, *, progress: Progress) -> None:
    """Fill the build directory: the program, `packages` and `loaders`. Raises EngineError."""
    sources = assets.worker_image()
    shutil.copy(sources / "base" / "Dockerfile", context)
    shutil.copy(sources / "assemble.py", context)
    install(base, requirements, context / "packages", progress=progress)
    (context / "loaders").mkdir()
    if (context / "packages" / "pandas").is_dir():  # a table becomes a frame, or nothing
        wanted = ("--no-deps", *_locked(base.python, "loaders", sources / "requirements-loaders.txt"))
        download(base, wanted, context / "loaders", progress=progress)


def install(base: Base, requirements: Path, target: Path, *, progress: Progress) -> None:
    """The libraries of the runner and of the jobs, into `target`.

    Our own requirements are installed as locked, with hashes. A user's requirements are combined with the locks: a
    package with a version in his lines gets that version, and all others get the locked version where it is compatible.
    """
    sources = assets.worker_image()
    runner = sources / "requirements-runner.txt"
    if lock := _lock_of(requirements):
        wanted = (*_locked(base.python, "runner", runner), *_locked(base.python, lock, requirements))
        download(base, wanted, target, progress=progress)
        return
    asked = named_requirements(requirements)
    check_runner_needs(asked, named_requirements(runner))
    pins = {name: version for name, version in _pins(base.python).items() if not asked.get(name, _ANY).specifier}
    wanted = ("--requirement", str(requirements), "--requirement", str(runner))
    with tempfile.TemporaryDirectory(prefix="pool-constraints-") as scratch:
        constraints = Path(scratch, "locked-versions.txt")
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pins.items())))
        try:
            download(base, (*wanted, "--constraint", str(constraints)), target, progress=progress)
        except EngineError:
            progress("libraries: the locked versions do not fit these requirements; taking the newest that do")
            shutil.rmtree(target, ignore_errors=True)
            download(base, wanted, target, progress=progress)


def named_requirements(path: Path) -> dict[str, Requirement]:
    """The lines of a requirements file that name a package, by its normal name. pip reads options and URLs."""
    found: dict[str, Requirement] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(InvalidRequirement):
            requirement = Requirement(line.partition(" #")[0].strip())
            found[canonicalize_name(requirement.name)] = requirement
    return found


def check_runner_needs(asked: Mapping[str, Requirement], needed: Mapping[str, Requirement]) -> None:
    """Raise EngineError if a line fixes a version with which the runner does not work."""
    for name, requirement in asked.items():
        fixed = [each.version for each in requirement.specifier if each.operator in {"==", "==="}]
        need = needed.get(name)
        if need is not None and any("*" not in each and not need.specifier.contains(each) for each in fixed):
            raise EngineError(
                f"the requirements say {requirement}, and the worker's own code needs {need}; "
                f"change that line to a version that fits, or take it out"
            )


def _locked(python: str, name: str, requirements: Path) -> tuple[str, ...]:
    """Arguments of pip: the lock file for this Python, or the open requirements where there is no lock for it."""
    lock = assets.worker_image() / "locks" / python / f"{name}.txt"
    return ("--require-hashes", "--requirement", str(lock)) if lock.is_file() else ("--requirement", str(requirements))


def _pins(python: str) -> dict[str, str]:
    locks = (assets.worker_image() / "locks" / python / f"{name}.txt" for name in ("runner", "libraries"))
    return {name: version for lock in locks if lock.is_file() for name, version in _PIN.findall(lock.read_text())}


def _lock_of(requirements: Path) -> str:
    """The name of the lock file for these requirements; empty if they are a user's."""
    locks = {profile(name).read_bytes(): "libraries" if name == "default" else name for name in PROFILES}
    return locks.get(requirements.read_bytes(), "")


def _inputs(python: str, requirements: Path) -> list[Path]:
    """Files of ours that decide which versions are installed."""
    sources = assets.worker_image()
    files = [*sorted(sources.glob("requirements-*.txt")), *sorted((sources / "locks" / python).glob("*.txt"))]
    others = {"science.txt", "requirements-science.txt"} if _lock_of(requirements) != "science" else set()
    return [file for file in files if file.name not in others]


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
