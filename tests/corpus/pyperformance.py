"""pyperformance's programs that need no package but pyperf, which a small module of ours stands in for.

A program and its files are the files of a job; the job puts them where they belong and runs the program as `__main__`.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.corpus.case import Case
from tests.corpus.packages import carried

PART = "pyperformance"
_PYPERF = Path(__file__).with_name("inside") / "pyperf.py"
#: A job's files have plain names; this stands for the directories of theirs.
_SLASH = "@"
_MOST_FILES = 200
_PROGRAM = f"""
import os, runpy, sys
for name in os.listdir():
    if {_SLASH!r} in name:
        path = name.replace({_SLASH!r}, os.sep)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.rename(name, path)
sys.path.insert(0, os.getcwd())
sys.argv = ["run_benchmark.py", *OPTIONS]
import pyperf
runpy.run_path(os.path.abspath("run_benchmark.py"), run_name="__main__")
result = pyperf.told
"""


def load() -> tuple[list[Case], dict[str, str]]:
    """The cases; and of each program that is left out, why."""
    root = carried("pyperformance", "pyperformance/data-files/benchmarks")
    cases: list[Case] = []
    left_out: dict[str, str] = {}
    for place in sorted(root.glob("bm_*")):
        packages = _packages(place)
        if packages:
            left_out[place.name.removeprefix("bm_")] = f"needs {', '.join(packages)}"
        else:
            cases += _cases(place)
    return cases, left_out


def _packages(place: Path) -> list[str]:
    """What it needs that the image does not have."""
    wanted = tomllib.loads((place / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("dependencies", [])
    pinned = place / "requirements.txt"
    if pinned.exists():
        wanted = [*wanted, *pinned.read_text(encoding="utf-8").splitlines()]
    names = {each.split("#")[0].split("=")[0].split(";")[0].strip() for each in wanted} - {"", "pyperf"}
    return sorted({name.lower().replace("_", "-"): name for name in sorted(names)}.values())


def _cases(place: Path) -> Iterator[Case]:
    """The program as it is, and each of its variants."""
    files = {
        str(path.relative_to(place)).replace("/", _SLASH): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.suffix not in {".toml", ".pyc"}
    } | {"pyperf.py": _PYPERF.read_bytes()}
    assert len(files) <= _MOST_FILES, f"{place.name} has {len(files)} files"
    for told in sorted(place.glob("*.toml")):
        options = tomllib.loads(told.read_text(encoding="utf-8"))["tool"]["pyperformance"]
        code = _PROGRAM.replace("OPTIONS", repr(options.get("extra_opts", [])))
        yield Case(name=f"pyperformance.{options['name']}", part=PART, code=code, files=files)
