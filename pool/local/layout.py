"""What a local worker finds below /: the C library, this Python with its libraries, the runner, and nothing else.

Everything is mounted read-only and at its own path, because an interpreter and its virtual environment contain their
own paths. The directories above them are otherwise empty. The job's /tmp would hide a virtual environment below /tmp.
In that case its base Python runs, with the libraries at /opt/libraries.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pool import assets
from pool.errors import NoLockdownError
from pool.sources import IMAGE_ROOT, LEAVES, PACKAGE_INIT

#: System directories of the host. A link there, such as /lib, is the same link here.
_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64")
#: Files of /etc with the paths of libraries. None has facts about this host or its users.
_LOADER = ("/etc/ld.so.cache", "/etc/alternatives")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_DESCRIPTORS = {"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2"}
#: Directories that the job has itself, so the host's are hidden.
_OWN = ("/tmp/", "/dev/", "/proc/", "/sys/", "/run/")  # noqa: S108 - compared only
#: Directories with files that a job must not see. A Python in one of them is refused.
_NEVER = ("/", "/etc", "/home", "/root", "/var", "/tmp", "/proc", "/sys", "/dev", "/run")  # noqa: S108 - compared only


@dataclass(frozen=True, slots=True)
class Layout:
    program: str  #: the interpreter
    binds: tuple[tuple[str, str], ...]  #: source on the host and target, read-only
    links: Mapping[str, str]
    files: Mapping[str, str]  #: written into it
    imports: tuple[str, ...]  #: directories with libraries that the interpreter does not find by itself


def layout(*, uid: int, link: Path) -> Layout:
    """`link`: the directory that has link.sock. Raises NoLockdownError for a Python that cannot be used."""
    hidden = sys.prefix.startswith(_OWN)
    libraries = {path: _place(path, number) for number, path in enumerate(_libraries(hidden=hidden))}
    pythons = _pythons(hidden=hidden)
    system = [path for path in _SYSTEM if Path(path).is_dir() and not Path(path).is_symlink()]
    places = _outermost([*system, *pythons, *filter(os.path.exists, _LOADER)])
    return Layout(
        program=os.path.realpath(sys.executable) if hidden else sys.executable,
        binds=(
            *((path, path) for path in places),
            *((path, target) for path, target in libraries.items() if not _is_in(target, places)),
            *_runner(),
            (str(link), "/run/pool"),
        ),
        links={path: str(Path(path).readlink()) for path in _SYSTEM if Path(path).is_symlink()} | _DESCRIPTORS,
        files={
            f"{IMAGE_ROOT}/pool/__init__.py": PACKAGE_INIT.decode(),
            "/etc/passwd": f"root:x:0:0:root:/:/nonexistent\njob:x:{uid}:{uid}:job:/tmp/work:/nonexistent\n",
            "/etc/group": f"root:x:0:\njob:x:{uid}:\n",
        },
        imports=tuple(libraries.values()),
    )


def _pythons(*, hidden: bool) -> list[str]:
    """The directories of this interpreter: its virtual environment, unless it is hidden, and the Python below it."""
    prefixes = [sys.base_prefix, sys.base_exec_prefix, *([] if hidden else [sys.prefix])]
    found = [*map(os.path.realpath, prefixes), *prefixes]
    home = str(Path.home())
    for path in found:
        if path in _NEVER or path == home or path.startswith(_OWN):
            raise NoLockdownError(
                f"nothing was run: the root file system of a job cannot have {path}, where this Python is installed, "
                "because that directory is private or a job has its own; use a Python in another directory, or a "
                "virtual environment of /usr/bin/python3",
                part="root file system",
            )
    return found


def _libraries(*, hidden: bool) -> Iterator[str]:
    """Directories of installed packages that the interpreter inside does not find by itself, such as
    ~/.local/lib/python3.11/site-packages; those of a hidden virtual environment too.
    """
    own = set() if hidden else set(sysconfig.get_paths().values())
    for path in dict.fromkeys(sys.path):
        if path not in own and Path(path).name in {"site-packages", "dist-packages"} and Path(path).is_dir():
            yield path


def _place(path: str, number: int) -> str:
    """Its path inside the worker."""
    return f"/opt/libraries/{number}" if path.startswith(_OWN) else path


def _runner() -> Iterator[tuple[str, str]]:
    """The runner's tree as in the image, from this installation, with its compiled files."""
    yield str(assets.worker_image() / "runner"), f"{IMAGE_ROOT}/runner"
    for leaf in (*LEAVES, "__pycache__/"):
        source = assets.package() / leaf
        if source.exists():
            yield str(source).rstrip("/"), f"{IMAGE_ROOT}/pool/{leaf}".rstrip("/")


def _outermost(paths: Sequence[str]) -> list[str]:
    """These paths without those that are below another one."""
    found: list[str] = []
    for path in sorted(set(paths)):
        if not _is_in(path, found):
            found.append(path)
    return found


def _is_in(path: str, places: Sequence[str]) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in places)
