"""The worker image without a Docker Engine: the same three steps, as unpacked roots for the engine oci.

    pool-base        Debian's packages, by mmdebstrap or debootstrap
    pool-libraries   the output of assemble.py, run by runc in the base: no network, only the new root writable
    pool-worker      the same files by hard links, and the runner

Needs root, and runc.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pool import assets
from pool.engines.base import ImageFacts
from pool.engines.bundle import NAMESPACES, SYSTEM_MOUNTS
from pool.engines.roots import Image, Roots
from pool.engines.runc import PROGRAM
from pool.errors import EngineError
from pool.images.base import PROBE, Base, bootstrap, debian_base, described
from pool.images.libraries import laid_out
from pool.images.steps import Progress, fingerprint
from pool.images.worker import labels_of, write_tree

#: Where a step finds its inputs and leaves its result, inside the base.
INPUTS, RESULT = "/build", "/rootfs"
#: The last step of all writes the byte code into the worker's root, next to the runner.
OPT = "/opt"
#: The capabilities that the steps of a Docker build also use: change owners and modes, and ldconfig's chroot.
_CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SYS_CHROOT")


def build(
    tag: str, *, roots: Roots, progress: Progress, python: str | None = None, requirements: Path | None = None,
    force: bool = False,
) -> ImageFacts:  # fmt: skip
    """Build the worker image into `roots`, unless it is up to date. Raises EngineError.

    The arguments are those of `pool.images.build`.
    """
    requirements = requirements or assets.worker_image() / "requirements.txt"
    base = _base(roots, python, progress=progress)
    libraries = _libraries(roots, base, requirements, force=force, progress=progress)
    tree = assets.runner_tree()
    labels = labels_of(tree, base, libraries)
    found = roots.find(tag)
    if found is not None and found.labels == labels and not force:
        progress(f"worker: {tag}, up to date")
        return found.facts
    progress(f"worker: building {tag}")
    image = Image(id=_id(*labels.values()), entrypoint=_entrypoint(), labels=labels)
    return roots.add(tag, image, lambda root: _fill_worker(root, roots, base, libraries, tree, progress)).facts


def _base(roots: Roots, python: str | None, *, progress: Progress) -> Base:
    recipe, tag = debian_base(python)
    image = Image(id=_id(tag), entrypoint=())
    if roots.find(tag) is None:
        roots.add(tag, image, lambda root: _fill_base(root, tag, recipe, progress))
    else:
        progress(f"base: {tag}, present")
    with tempfile.TemporaryDirectory(prefix="pool-build-") as scratch:
        answer = Path(scratch, "answer")
        script = f"import sys; sys.stdout = open('{RESULT}/answer', 'w')\n{PROBE}"
        run_step(roots.root(tag).path, ["python3", "-I", "-c", script], {RESULT: Path(scratch)})
        return described(tag, image.id, answer.read_bytes())


def _fill_base(root: Path, tag: str, recipe: dict[str, Any], progress: Progress) -> None:
    bootstrap(root, tag, recipe=recipe, progress=progress)
    for place in (INPUTS, RESULT):
        (root / place.lstrip("/")).mkdir()


def _libraries(roots: Roots, base: Base, requirements: Path, *, force: bool, progress: Progress) -> str:
    def build(tag: str, recipe: str, context: Path) -> None:
        # With `force` the same recipe may give newer versions, which are another image.
        image = Image(id=_id(recipe, str(context) if force else ""), entrypoint=())
        command = ["root", f"{INPUTS}/packages", f"{INPUTS}/loaders", RESULT]
        roots.add(tag, image, lambda root: _assemble(roots, base, command, context, root))

    def present(tag: str) -> bool:
        return roots.find(tag) is not None

    return laid_out(base, requirements, present=present, build=build, force=force, progress=progress)


def _fill_worker(
    root: Path, roots: Roots, base: Base, libraries: str, tree: dict[str, bytes], progress: Progress
) -> None:
    with tempfile.TemporaryDirectory(prefix="pool-worker-") as scratch:
        context, result = Path(scratch, "build"), Path(scratch, "rootfs")
        context.mkdir()
        shutil.copy(assets.worker_image() / "assemble.py", context)
        write_tree(tree, result / "opt/pool")
        _assemble(roots, base, ["compile", RESULT], context, result)
        progress("worker: the libraries and the runner in one root")
        # Hard links: no file of a root is changed after it was made, and most of them are the libraries'.
        shutil.copytree(roots.root(libraries).path, root, symlinks=True, dirs_exist_ok=True, copy_function=link)
        shutil.copytree(result, root, symlinks=True, dirs_exist_ok=True)
    run_step(root, _byte_code(), {OPT: Path(root, OPT.lstrip("/"))})


def link(source: str, target: str) -> None:
    """Link a file. shutil.copytree calls it with these arguments."""
    Path(target).hardlink_to(source)


def _assemble(roots: Roots, base: Base, arguments: list[str], context: Path, result: Path) -> None:
    """Run assemble.py of `context` in the base. Its output is in `result`."""
    program = ["python3", "-I", f"{INPUTS}/assemble.py"]
    run_step(roots.root(base.name).path, [*program, *arguments], {RESULT: result}, {INPUTS: context})


def run_step(
    root: Path, command: list[str], results: Mapping[str, Path], inputs: Mapping[str, Path] = MappingProxyType({})
) -> None:
    """Run a program in a root as root, without network. Raises EngineError with its last output.

    `results`, `inputs`: directories that it may write to or read, by their place in the root.
    """
    with tempfile.TemporaryDirectory(prefix="pool-step-") as bundle:
        content = _config(root, command, results, inputs)
        Path(bundle, "config.json").write_text(json.dumps(content), encoding="utf-8")
        name = Path(bundle).name
        call = [PROGRAM, "--root", f"{bundle}/state", "run", "--bundle", bundle, name]
        try:
            done = subprocess.run(call, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        except OSError as error:
            raise EngineError(f"runc cannot be executed: {error.strerror}; `apt-get install runc`") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()[-500:]
        raise EngineError(f"a step of the build ended with exit code {done.returncode}: {words}")


def _config(root: Path, command: list[str], results: Mapping[str, Path], inputs: Mapping[str, Path]) -> dict[str, Any]:
    scratch = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}  # noqa: S108
    memory = {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["mode=1777"]}  # noqa: S108
    binds = [
        {"destination": place, "type": "bind", "source": str(source), "options": ["bind", mode]}
        for mode, directories in (("ro", inputs), ("rw", results))
        for place, source in directories.items()
    ]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": True},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": command,
            "env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
            "cwd": "/",
            "capabilities": {name: list(_CAPABILITIES) for name in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "mounts": [*SYSTEM_MOUNTS, scratch, memory, *binds],
        "linux": {"namespaces": [{"type": name} for name in NAMESPACES]},
    }


def _entrypoint() -> tuple[str, ...]:
    return tuple(_commands("ENTRYPOINT")[0])


def _byte_code() -> list[str]:
    """The last step of the build."""
    return _commands("RUN")[-1]


def _commands(keyword: str) -> list[list[str]]:
    """As the Dockerfile has them."""
    lines = (assets.worker_image() / "Dockerfile").read_text(encoding="utf-8").splitlines()
    return [json.loads(line.removeprefix(keyword)) for line in lines if line.startswith(f"{keyword} ")]


def _id(*parts: str) -> str:
    return f"sha256:{fingerprint(*parts)}"
