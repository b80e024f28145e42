"""Make the lock files: the exact versions, with hashes, of all Python packages that ./dev and the image build install.

    pyproject.toml ────────────────────┐                   ┌──▶ locks/3.11/demo.txt, test.txt, lint.txt, ...
                                       ├─ uv pip compile ──┤
    worker_image/requirements*.txt ────┘                   └──▶ worker_image/locks/3.11/runner.txt, ...

For each supported Python, one resolution of everything chooses the versions. Each file takes its part of them.
So files that are installed together never contradict each other, and a loop and its workers have the same libraries.

`python tools/lock.py --uv PATH` takes the newest releases that the declared ranges allow. With names of packages it
takes the newest releases of these only, and adds what pyproject.toml has gained. `./dev update` calls it.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13")

ROOT = Path(__file__).resolve().parents[1]

_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s\\;]+)", re.MULTILINE | re.IGNORECASE)

#: The versions of the packages in a lock file, or in several.
Pins = dict[str, str]


class LockError(Exception):
    """The wanted packages cannot be resolved."""


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock file of each Python: where it lies, and what is in it."""

    place: str
    wanted: tuple[str, ...]  #: arguments of `uv pip compile`
    alone: bool = False  #: without what the packages need

    def path(self, python: str) -> Path:
        return ROOT / self.place.format(python=python)


def _extras(*names: str) -> tuple[str, ...]:
    return ("pyproject.toml", *(f"--extra={name}" for name in names))


_CHECKOUT = "--group=pyproject.toml:checkout"

LOCKS = (
    Lock("locks/{python}/runtime.txt", ("pyproject.toml",)),
    Lock("locks/{python}/demo.txt", (*_extras("values"), _CHECKOUT)),
    Lock("locks/{python}/test.txt", (*_extras("test"), _CHECKOUT)),
    Lock("locks/{python}/lint.txt", (*_extras("lint"), _CHECKOUT)),
    Lock("locks/{python}/bench.txt", (*_extras("bench"), _CHECKOUT)),
    Lock("locks/{python}/fuzz.txt", (*_extras("fuzz"), _CHECKOUT)),
    Lock("worker_image/locks/{python}/runner.txt", ("worker_image/requirements-runner.txt",)),
    Lock("worker_image/locks/{python}/libraries.txt", ("worker_image/requirements.txt",)),
    Lock("worker_image/locks/{python}/science.txt", ("worker_image/requirements-science.txt",)),
    Lock("worker_image/locks/{python}/loaders.txt", ("worker_image/requirements-loaders.txt",)),
)

#: Lock files that are the same for every Python.
COMMON = (
    Lock("locks/corpus.txt", ("--group=pyproject.toml:corpus",), alone=True),
    Lock("locks/uv.txt", ("--group=pyproject.toml:installer",), alone=True),
    Lock("examples/prices-requirements.txt", ("--group=pyproject.toml:prices",), alone=True),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the lock files again.")
    parser.add_argument("--uv", required=True, metavar="PATH", help="the program uv")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="take the newest release of these only")
    given = parser.parse_args()
    before = {path: pins(path) for path in _paths()}
    upgrade = _upgrade(given.packages)
    with ThreadPoolExecutor() as threads:  # most of the time uv waits for the network
        running = [threads.submit(_lock_for, python, uv=given.uv, upgrade=upgrade) for python in PYTHONS]
        running += [threads.submit(_compile, lock, PYTHONS[0], uv=given.uv, options=upgrade) for lock in COMMON]
        try:
            for each in running:
                each.result()
        except LockError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    changes = sorted(_changes(before, {path: pins(path) for path in _paths()}))
    for change in changes or ["no version has changed"]:
        _say(f"  {change}")
    return 0


def pins(path: Path) -> Pins:
    """The versions in a lock file by name; none if there is no such file."""
    return dict(_PIN.findall(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _paths() -> Iterator[Path]:
    for lock in (*LOCKS, *COMMON):
        yield from sorted({lock.path(python) for python in PYTHONS})


def _upgrade(packages: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"--upgrade-package={name}" for name in packages) or ("--upgrade",)


def _lock_for(python: str, *, uv: str, upgrade: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(prefix="lock-") as scratch:
        versions = Path(scratch, "versions.txt")
        # uv prefers what the output file had.
        known = {name: version for lock in LOCKS for name, version in pins(lock.path(python)).items()}
        versions.write_text("".join(f"{name}=={version}\n" for name, version in sorted(known.items())))
        wanted = dict.fromkeys(argument for lock in LOCKS for argument in lock.wanted)
        _uv(uv, python, [*wanted, *upgrade, "--no-header", f"--output-file={versions}"])
        for lock in LOCKS:
            _compile(lock, python, uv=uv, options=(f"--constraints={versions}",))
    _say(f"resolved for Python {python}")


def _compile(lock: Lock, python: str, *, uv: str, options: tuple[str, ...]) -> None:
    path = lock.path(python)
    path.parent.mkdir(parents=True, exist_ok=True)
    how = ("--generate-hashes", "--custom-compile-command=./dev update", *(("--no-deps",) if lock.alone else ()))
    _uv(uv, python, [*lock.wanted, *options, *how, f"--output-file={path}"])


def _uv(uv: str, python: str, arguments: Sequence[str]) -> None:
    # Wheels only: what is built from source would need packages that no lock file names.
    target = (f"--python-version={python}", "--python-platform=linux", "--no-build", "--no-python-downloads")
    command = [uv, "pip", "compile", *target, "--no-annotate", "--quiet", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        raise LockError(f"uv could not resolve {' '.join(arguments)} for Python {python}; the lines above say why")


def _changes(before: Mapping[Path, Pins], after: Mapping[Path, Pins]) -> Iterator[str]:
    """`numpy 2.4.5 -> 2.4.6 (locks/3.11)`, once for each directory."""
    places = defaultdict(set)
    for path, new in after.items():
        old = before[path]
        for name in old.keys() | new.keys():
            if old.get(name) != new.get(name):
                change = f"{name} {old.get(name, '(new)')} -> {new.get(name, '(gone)')}"
                places[change].add(os.fspath(path.parent.relative_to(ROOT)))
    for change, where in places.items():
        yield f"{change} ({', '.join(sorted(where))})"


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
