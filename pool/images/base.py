"""The base image, from which a Python is copied. Only parts of it are in the worker image, so its size does not matter.

Sources, in this order: the requested image; a slim Python image that is already in the Engine; an earlier image from
Debian's packages; the slim Python image of a registry; Debian's packages.

mmdebstrap unpacks Python's packages in seconds. debootstrap, where only that is installed, takes a minute or two,
because it installs a whole system. The worker image gets the same files from both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError

from pool import assets
from pool.engines.connection import Connections
from pool.errors import EngineError, ImageMissingError
from pool.images.steps import Progress, fingerprint, has_image, run

#: The version of this interpreter, such as "3.11".
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"

#: A registry that does not answer for so long counts as unreachable.
REGISTRY_TIMEOUT_S = 15

#: The variable that names another mirror of Debian's packages.
MIRROR_VARIABLE = "POOL_DEBIAN_MIRROR"
MIRROR = "http://deb.debian.org/debian"

#: The release of Debian that has this Python. It has no 3.12; a registry's slim image has.
SUITES = {"3.11": "bookworm", "3.13": "trixie"}
#: The versions that an image can have: the libraries are locked for these.
PYTHONS = ("3.11", "3.12", "3.13")

#: Packages that mmdebstrap unpacks besides the recipe's: the directories of a system, the locale C.UTF-8 and ldconfig,
#: chroot, and the C++ library, which wheels expect on every system.
_UNPACKED = ("base-files", "libc-bin", "coreutils", "libstdc++6")

PROBE = """
import json, os, platform, sys
print(json.dumps({"python": "%d.%d" % sys.version_info[:2], "full": platform.python_version(),
                  "libc": os.confstr("CS_GNU_LIBC_VERSION"), "machine": platform.machine()}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base image, and facts that its Python reported."""

    name: str
    id: str
    python: str  #: "3.11"
    python_full: str  #: "3.11.2"
    libc: tuple[int, int]
    machine: str  #: "x86_64"


def find_base(client: docker.APIClient, wanted: str | None, *, progress: Progress, python: str | None = None) -> Base:
    """Find or make the base image. `python`: one of PYTHONS; None: the version of this interpreter, where there is one.

    Raises EngineError for a version that is not available, or that the image `wanted` does not have.
    """
    name = _given(client, wanted, progress=progress) if wanted else _default(client, python, progress=progress)
    found = _inspect(client, name)
    if python not in {None, found.python}:
        raise EngineError(f"the base image {name!r} has Python {found.python}; --python asks for {python}")
    return found


def _given(client: docker.APIClient, name: str, *, progress: Progress) -> str:
    if not has_image(client, name) and not _pull(name, progress=progress):
        raise ImageMissingError(
            f"the base image {name!r} is not on this host, and no registry that was asked has it; check its name",
            image=name,
        )
    return name


def _default(client: docker.APIClient, python: str | None, *, progress: Progress) -> str:
    # The version of this interpreter, so that what a loop pickles is loaded by the Python that pickled it.
    slim = f"python:{python or HERE}-slim-bookworm"
    recipe, debian = debian_base(python if python in SUITES else None)
    packaged = python is None or python in SUITES
    for name in (slim, debian) if packaged else (slim,):
        if has_image(client, name):
            progress(f"base: {name}, present")
            return name
    if _pull(slim, progress=progress):
        return slim
    if not packaged:
        raise not_packaged(python, slim)
    _from_packages(client, debian, recipe=recipe, progress=progress)
    return debian


def not_packaged(python: str | None, slim: str = "") -> EngineError:
    """The error for a version for which no base can be made here."""
    tried = f", and no registry that has {slim} answers" if slim else ""
    return EngineError(
        f"Debian has no package of Python {python}{tried}; build with --python {' or '.join(SUITES)}, "
        "or name an image that has it with --base"
    )


def debian_base(python: str | None = None) -> tuple[dict[str, Any], str]:
    """The recipe of the base from Debian's packages, and its tag. Raises EngineError.

    `python`: None is the version of this interpreter, or the recipe's own where Debian has no packages of that.
    """
    if python is not None and python not in SUITES:
        raise not_packaged(python)
    recipe = json.loads((assets.worker_image() / "base" / "debian.json").read_text(encoding="utf-8"))
    recipe["suite"] = SUITES.get(python or HERE, recipe["suite"])
    return recipe, f"pool-base:{recipe['suite']}-{fingerprint(json.dumps(recipe, sort_keys=True))[:12]}"


def _pull(name: str, *, progress: Progress) -> bool:
    """Pull the image. False if no registry answers or none has it."""
    progress(f"base: pulling {name}")
    connections = Connections(timeout_s=REGISTRY_TIMEOUT_S)
    try:
        with connections.client() as client:
            for event in client.pull(name, stream=True, decode=True):
                if "error" in event:
                    progress(f"  not available: {event['error'][:200]}")
                    return False
                if not event.get("progressDetail"):
                    progress(f"  {event.get('id', '')} {event.get('status', '')}".rstrip())
    except APIError as error:
        progress(f"  not available: {str(error.explanation)[:200]}")
        return False
    except requests.RequestException:
        progress(f"  no answer from the registry within {REGISTRY_TIMEOUT_S} s")
        return False
    finally:
        connections.close()
    return True


def _from_packages(client: docker.APIClient, tag: str, *, recipe: dict[str, Any], progress: Progress) -> None:
    with tempfile.TemporaryDirectory(prefix="pool-base-") as scratch:
        root = Path(scratch) / "root"
        bootstrap(root, tag, recipe=recipe, progress=progress)
        progress("base: importing it into the Docker Engine")
        _import(client, root, tag)


def bootstrap(root: Path, tag: str, *, recipe: dict[str, Any], progress: Progress) -> None:
    """Make the base's file system from Debian's packages. `root`: empty or missing. Raises EngineError."""
    program = _require_bootstrap()
    progress(f"base: making {tag} from Debian's packages with {program} (once)")
    mirror = os.environ.get(MIRROR_VARIABLE) or MIRROR
    run(
        [program, *_OPTIONS[program](recipe), recipe["suite"], str(root), mirror],
        progress=progress,
        remedy=f"check the network, or name a mirror of Debian in {MIRROR_VARIABLE}, or an image with --base",
    )


def _options_of_mmdebstrap(recipe: dict[str, Any]) -> list[str]:
    # The variant `extract` runs no script of a package. The hook makes /lib and /bin links, as in Debian.
    packages = ",".join([*recipe["include"], *_UNPACKED])
    hooks = "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"
    return ["--mode=root", "--variant=extract", f"--include={packages}", hooks]


def _options_of_debootstrap(recipe: dict[str, Any]) -> list[str]:
    return [f"--variant={recipe['variant']}", f"--include={','.join(recipe['include'])}"]


#: The programs that can make the base, the fastest first.
_OPTIONS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "mmdebstrap": _options_of_mmdebstrap,
    "debootstrap": _options_of_debootstrap,
}


def _require_bootstrap() -> str:
    """The program that makes the base from Debian's packages. Raises EngineError."""
    found = next((name for name in _OPTIONS if shutil.which(name)), None)
    other = "or name a base image that is in the Docker Engine already with --base"
    if found is None:
        raise EngineError(
            "no registry is reachable, and mmdebstrap, which makes the base image from Debian's packages, is not "
            f"installed: `apt-get install mmdebstrap`, {other}"
        )
    if os.geteuid() != 0:
        raise EngineError(
            f"no registry is reachable, and {found}, which makes the base image from Debian's packages, needs root: "
            f"run `sudo pool-admin image build` once, {other}"
        )
    return found


def _import(client: docker.APIClient, root: Path, tag: str) -> None:
    left_out = [
        f"--exclude=./{name}" for name in ("var/cache/apt", "var/lib/apt/lists", "var/log", "dev", "proc", "sys")
    ]
    command = ["tar", "--numeric-owner", "-C", str(root), *left_out, "-c", "."]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as tar:
        client.import_image(
            src=_chunks(tar), repository=tag.partition(":")[0], tag=tag.partition(":")[2], stream_src=True
        )
    if tar.returncode != 0:
        client.remove_image(tag)
        raise EngineError("tar failed while packing the base image; look at the free space of the temporary directory")


def _chunks(process: subprocess.Popen[bytes]) -> Any:
    if process.stdout is None:
        return iter(())
    read: Callable[[], bytes] = lambda: process.stdout.read(1 << 20)  # type: ignore[union-attr]  # noqa: E731
    return iter(read, b"")


def _inspect(client: docker.APIClient, name: str) -> Base:
    found = client.inspect_image(name)  # type: ignore[no-untyped-call]
    return described(name, found["Id"], _ask(client, found["Id"]))


def described(name: str, image_id: str, answer: bytes) -> Base:
    """A base from its Python's answer to PROBE."""
    told = json.loads(answer)
    major, minor = told["libc"].split()[-1].split(".")[:2]
    return Base(
        name=name,
        id=image_id,
        python=told["python"],
        python_full=told["full"],
        libc=(int(major), int(minor)),
        machine=told["machine"],
    )


def _ask(client: docker.APIClient, image: str) -> bytes:
    host = client.create_host_config(network_mode="none")
    created = client.create_container(image, ["-I", "-c", PROBE], entrypoint=["python3"], host_config=host)
    try:
        client.start(created["Id"])
        status = client.wait(created["Id"])["StatusCode"]
        output: bytes = client.logs(created["Id"], stdout=True, stderr=status != 0)
    except APIError as error:
        raise EngineError(f"the base image cannot run python3: {str(error.explanation)[:300]}") from error
    finally:
        client.remove_container(created["Id"], force=True)
    if status != 0:
        raise EngineError(f"the python3 of the base image fails: {output[-300:].decode(errors='replace')}")
    return output
