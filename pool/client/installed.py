"""Which modules are the user's own code, and which belong to an installed library."""

from __future__ import annotations

import site
import sys
import sysconfig
from functools import cache
from importlib import metadata
from pathlib import Path


def is_users(module: str | None) -> bool:
    """Whether the module is the user's own code, which the sandbox has no copy of."""
    top = (module or "").partition(".")[0]
    if top in {"", "__main__"} or top in sys.stdlib_module_names:
        return False
    if top == "pool":
        return True
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    return isinstance(file, str) and not _is_installed(file, top)


def _is_installed(file: str, top: str) -> bool:
    """Whether this file of the package or module `top` belongs to a library."""
    if file.startswith(_installed()):
        return True
    parents = Path(file).parents
    if any(each.name in _SITES for each in parents):
        return True
    # The directory that the package was imported from.
    root = next((each.parent for each in parents if each.name == top), parents[0])
    return top in _names_in(root)


@cache
def _names_in(root: Path) -> frozenset[str]:
    """What was installed into this directory by pip: packages and modules that have their metadata beside them."""
    names: set[str] = set()
    for each in root.glob("*.dist-info"):
        paths = metadata.PathDistribution(each).files or ()
        names.update(path.parts[0].partition(".")[0] for path in paths)
    return frozenset(names)


#: Directories of installed libraries in any interpreter, also a system's or conda's.
_SITES = frozenset({"site-packages", "dist-packages"})


@cache
def _installed() -> tuple[str, ...]:
    """The directories of installed libraries, each with a slash at its end."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(f"{path}/" for path in paths | {*site.getsitepackages(), site.getusersitepackages()})
