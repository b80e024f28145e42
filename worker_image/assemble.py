"""Runs inside the base image: lays out the file system of a worker, or byte-compiles the runner.

    assemble.py root PACKAGES LOADERS OUT    interpreter and standard library, PACKAGES for all, LOADERS for what loads
                                             data sets, and the shared libraries that all of them load
    assemble.py compile OUT                  byte-code for the sources below OUT/opt

Works with Debian's python3 (/usr/bin, dist-packages) and with an official Python image (/usr/local, site-packages),
because it asks the interpreter where things are. Standard library only.
"""

from __future__ import annotations

import compileall
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from py_compile import PycInvalidationMode

#: Parts of the standard library that a job has no use for.
STDLIB_DROPPED = (
    "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "lib2to3", "ensurepip", "pydoc_data", "venv",
    "distutils", "site-packages", "dist-packages", "config-*", "__pycache__", "_test*", "_ctypes_test*", "_xxtest*",
    "xxlimited*", "_tkinter*", "readline.*", "_curses*", "_dbm.*", "_gdbm.*", "nis.*", "EXTERNALLY-MANAGED",
)  # fmt: skip

#: Parts of installed libraries that are there for developers.
PACKAGES_DROPPED = ("tests", "*.pyi", "*.a", "__pycache__", "pip", "pip-*", "bin")

#: Of pyarrow, what reads parquet and feather is kept: no network, no other file systems, no query engine, no headers.
LOADERS_DROPPED = (
    *PACKAGES_DROPPED, "include", "includes", "src", "*.pyx", "*.pxi", "*.pxd", "*.so.*.*.*", "libarrow_python.so",
    "*flight*", "*s3*", "_gcsfs*", "_azurefs*", "_hdfs*", "*_cpp_tests*", "*orc*", "_dataset*", "_acero*",
    "_substrait*", "*encryption*", "_csv*", "_json*", "*gandiva*", "*cuda*",
)  # fmt: skip

#: Where the runner looks for them: worker_image/runner/datasets.py.
LOADERS = Path("usr/lib/pool-loaders")

#: Loaded by name at run time, so the dynamic linker does not list them.
LOADED_LATER = ("libgcc_s.so.1",)

#: Mount points, and directories that programs expect.
DIRECTORIES = ("dev/shm", "etc", "opt", "proc", "run/pool", "sys", "tmp", "datasets", "usr/bin", "usr/share")

FILES = {
    "etc/passwd": "root:x:0:0:root:/:/nonexistent\njob:x:65532:65532:job:/tmp/work:/nonexistent\n",
    "etc/group": "root:x:0:\njob:x:65532:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["root"]:
        assemble(*map(Path, arguments[1:]))
    else:
        out = Path(arguments[1])
        compile_below(out, out / "opt")
        harden(out)


def assemble(packages: Path, loaders: Path, out: Path) -> None:
    say("interpreter and standard library")
    lay_out(out)
    python = copy_interpreter(out)
    stdlib = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(stdlib, out / stdlib.relative_to("/"), ignore=shutil.ignore_patterns(*STDLIB_DROPPED))
    say("libraries")
    libraries = Path(site.getsitepackages()[0])
    shutil.copytree(packages, out / libraries.relative_to("/"), ignore=shutil.ignore_patterns(*PACKAGES_DROPPED))
    shutil.copytree(loaders, out / LOADERS, ignore=shutil.ignore_patterns(*LOADERS_DROPPED))
    copy_locale(out)
    link_zones(out, libraries / "tzdata/zoneinfo")
    say("shared libraries")
    copy_shared_libraries(out, [python, *out.rglob("*.so*")])
    say("byte-code")
    compile_below(out, out / "usr")
    harden(out)
    check(out)


def lay_out(out: Path) -> None:
    for name in DIRECTORIES:
        (out / name).mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (out / name).write_text(text)
    for name in ("lib", "lib64", "bin"):  # /lib -> usr/lib, as in the base
        if (link := Path("/", name)).is_symlink():
            (out / name).symlink_to(link.readlink())
            (out / link.readlink()).mkdir(parents=True, exist_ok=True)


def copy_interpreter(out: Path) -> Path:
    """The interpreter at its own path, and /usr/bin/python3 whatever that is."""
    python = Path(sys.executable).resolve()
    copied = place(python, out)
    stable = out / "usr/bin/python3"
    if copied != stable:
        stable.symlink_to(python)
    return copied


def copy_locale(out: Path) -> None:
    """C.UTF-8, which is the locale of the workers, so that setlocale() finds it."""
    found = [path for name in ("C.utf8", "C.UTF-8") if (path := Path("/usr/lib/locale", name)).is_dir()]
    for path in found[:1]:
        shutil.copytree(path, out / path.relative_to("/"))
    if not found:
        say("note: the base image has no locale C.UTF-8")


def link_zones(out: Path, zones: Path) -> None:
    """The time zones of the package tzdata, at the place where the C library and zoneinfo look for them."""
    if (out / zones.relative_to("/")).is_dir():
        (out / "usr/share/zoneinfo").symlink_to(zones)


def copy_shared_libraries(out: Path, files: Iterable[Path]) -> None:
    loader = next(path for name in ("/lib64", "/lib") for path in sorted(Path(name).glob("ld-linux*.so*")))
    needed = {loader}
    for file in files:
        if is_elf(file):
            needed.update(library for library in loaded_by(loader, file) if not library.is_relative_to(out))
    for library in sorted(needed | {library for name in LOADED_LATER for library in find_library(name)}):
        place(library, out)
    configure_loader(out)


def loaded_by(loader: Path, file: Path) -> Iterator[Path]:
    """What the dynamic linker would load for `file`, by its own word."""
    listed = subprocess.run([str(loader), "--list", str(file)], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        name, arrow, found = line.strip().partition(" => ")
        if arrow and found.startswith("/"):
            yield Path(found.rpartition(" (")[0])
        elif arrow:
            # Often harmless: libraries that find their neighbours only after their package has loaded them.
            say(f"note: {file.name} asks for {name}, which is not there by itself")


def find_library(name: str) -> list[Path]:
    roots = (Path("/usr/lib"), Path("/lib"))
    return [next(path for root in roots for path in sorted(root.glob(f"*/{name}")))]


def configure_loader(out: Path) -> None:
    """Libraries outside the default directories (/usr/local/lib) are found by the loader's cache."""
    ldconfig = shutil.which("ldconfig", path="/sbin:/usr/sbin")
    if ldconfig is None:
        return
    shutil.copy("/etc/ld.so.conf", out / "etc")
    if Path("/etc/ld.so.conf.d").is_dir():
        shutil.copytree("/etc/ld.so.conf.d", out / "etc/ld.so.conf.d")
    subprocess.run([ldconfig, "-r", str(out)], check=True)
    shutil.rmtree(out / "var", ignore_errors=True)


def compile_below(out: Path, root: Path) -> None:
    """Byte-code that is never checked against its source: the root is read-only, nothing can change it."""
    compileall.compile_dir(
        root, maxlevels=40, quiet=2, workers=0, stripdir=str(out), prependdir="/", force=True,
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )  # fmt: skip


def harden(out: Path) -> None:
    """No setuid; readable for the worker's user, and nothing but /tmp writable for anybody but root.

    /tmp is covered by a tmpfs, and runtimes give that the mode of what it covers.
    """
    for path in (out, *out.rglob("*")):
        if path.is_symlink():
            continue
        path.chmod(0o755 if path.is_dir() or is_elf(path) else 0o644)
    if (out / "tmp").exists():
        (out / "tmp").chmod(0o1777)


def check(out: Path) -> None:
    """The result runs by itself."""
    names = "ctypes, sqlite3, ssl, zoneinfo, multiprocessing.synchronize, zmq, msgpack, msgspec, cloudpickle"
    programs = [f"import {names}", "import locale, zoneinfo; zoneinfo.ZoneInfo('Europe/Prague')"]
    if (out / LOADERS / "pyarrow").exists():
        programs.append(f"import sys; sys.path.append('/{LOADERS}'); import pyarrow.parquet, pyarrow.feather")
    for program in programs:
        subprocess.run(["/usr/sbin/chroot", str(out), "/usr/bin/python3", "-I", "-c", program], check=True)


def place(path: Path, out: Path) -> Path:
    """Copy the file that `path` leads to, to the same place below `out`."""
    target = out / path.parent.resolve().relative_to("/") / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)
    return target


def is_elf(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def say(text: str) -> None:
    print(f"assemble: {text}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
