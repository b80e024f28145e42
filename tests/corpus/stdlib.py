"""A selection of CPython's own tests, each module as a job: what programs use of the standard library.

The tests are those of Debian's package libpython3.11-testsuite, of the Python that the worker image has. They are not
in the image, so a job gets them in an archive. Its value says how many tests ran, and which were skipped or failed, and
with what.
"""

import io
import zipfile
from functools import cache
from pathlib import Path

from tests.corpus.case import Case

PART = "CPython's tests"
LIBRARY = Path("/usr/lib/python3.11")
PACKAGE = "libpython3.11-testsuite"

#: Not csv, whose tests do not end within five minutes in either place, and not sqlite3 and unittest, whose tests Debian
#: keeps elsewhere.
NAMES = (
    "json", "re", "datetime", "collections", "functools", "itertools", "statistics", "decimal", "fractions", "random",
    "string", "textwrap", "zlib", "hashlib", "struct", "heapq", "bisect", "dataclasses", "enum", "typing", "contextlib",
    "threading", "queue", "asyncio", "doctest", "pickle", "copy", "io", "pathlib", "tempfile",
)  # fmt: skip

#: Of one test: what it needs besides the modules without a prefix, by the beginning of its path.
_WITH = {
    "datetime": ("datetimetester",), "decimal": ("decimaltestdata/",), "dataclasses": ("dataclass_",),
    "doctest": ("test_doctest2", "test_doctest3", "test_doctest4", "test_doctest"), "pickle": ("pickle",),
    "io": ("test_memoryio",), "functools": ("test_functools",), "random": ("test_random",), "typing": ("typinganndata/",),
}  # fmt: skip
#: Of a package of tests: its modules that need no network and start no programs.
_PARTS = {
    "asyncio": (
        "context", "futures", "futures2", "locks", "pep492", "protocols", "queues", "runners",
        "taskgroups", "tasks", "threads", "timeouts", "transports", "waitfor",
    ),
}  # fmt: skip
_ALWAYS = ("__init__.py", "support/", "libregrtest/__init__.py")

_PROGRAM = """
import io, os, sys, unittest, zipfile
zipfile.ZipFile("tests.zip").extractall(".")
sys.path.insert(0, os.getcwd())
suite = unittest.defaultTestLoader.loadTestsFromNames(NAMES)
told = io.StringIO()
ran = unittest.TextTestRunner(told, verbosity=0).run(suite)
def last_line(text): return (text.strip().splitlines() or [""])[-1][:200]
result = {
    "ran": ran.testsRun,
    "failed": {str(test): last_line(why) for test, why in [*ran.failures, *ran.errors]},
    "skipped": sorted(str(test) for test, _ in ran.skipped),
}
"""


def load(library: Path = LIBRARY) -> list[Case]:
    """Empty if the package is not installed."""
    found = (library / "test" / "test_json").is_dir() and (library / "test" / "support").is_dir()
    return [_case(library, name) for name in NAMES] if found else []


def _case(root: Path, name: str) -> Case:
    parts = [f".test_{part}" for part in _PARTS.get(name, ())] or [""]
    return Case(
        name=f"stdlib.{name}",
        part=PART,
        code=_PROGRAM.replace("NAMES", repr([f"test.test_{name}{part}" for part in parts])),
        files={"tests.zip": _archive(root, name)},
    )


def _archive(root: Path, name: str) -> bytes:
    with io.BytesIO() as held:
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in _files(root):
                if _wanted(path, name):
                    archive.write(root / path, path)
        return held.getvalue()


@cache
def _files(root: Path) -> list[str]:
    found = (path for path in sorted((root / "test").rglob("*")) if path.is_file() and path.suffix != ".pyc")
    return [path.relative_to(root).as_posix() for path in found]


def _wanted(path: str, name: str) -> bool:
    inner = path.removeprefix("test/")
    helper = "/" not in inner and not inner.startswith("test_")
    return helper or inner.startswith((*_ALWAYS, f"test_{name}.py", f"test_{name}/", *_WITH.get(name, ())))
