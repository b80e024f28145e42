"""Finds the files that are not Python modules: the image's sources, the profiles, the example configuration.

An installed wheel carries them as `pool/_assets/...`; a checkout has them beside `pool/`, under the same names.
"""

from __future__ import annotations

from pathlib import Path

from pool.errors import ConfigError
from pool.sources import LEAVES, PACKAGE_INIT, read_tree

_PACKAGE = Path(__file__).resolve().parent
_ROOTS = (_PACKAGE / "_assets", _PACKAGE.parent)


def worker_image() -> Path:
    """The directory from which the worker image is built."""
    return _find("worker_image")


def seccomp_profile() -> str:
    """The seccomp profile of a worker's container, as JSON text."""
    return _find("seccomp/worker.json").read_text(encoding="utf-8")


def apparmor_profile() -> Path:
    """The AppArmor profile of a worker's container, to be loaded by the host's administrator."""
    return _find("seccomp/pool-worker.apparmor")


def example_config() -> Path:
    """The documented example configuration."""
    return _find("config/pool.yaml")


def systemd_unit() -> Path:
    """The unit of the daemon; beside it is that for the engine oci."""
    return _find("config/pool.service")


def package() -> Path:
    """The directory of the `pool` package itself."""
    return _PACKAGE


def runner_tree() -> dict[str, bytes]:
    """The Python files below /opt/pool in an image that is built now, by relative name (see pool/sources.py)."""
    tree = {f"runner/{name}": data for name, data in read_tree(worker_image() / "runner").items()}
    tree["pool/__init__.py"] = PACKAGE_INIT
    for leaf in LEAVES:
        path = package() / leaf
        if leaf.endswith("/"):
            tree |= {f"pool/{leaf}{name}": data for name, data in read_tree(path).items()}
        else:
            tree[f"pool/{leaf}"] = path.read_bytes()
    return tree


def _find(name: str, roots: tuple[Path, ...] = _ROOTS) -> Path:
    for root in roots:
        if (root / name).exists():
            return root / name
    places = " nor ".join(str(root / name) for root in roots)
    raise ConfigError(
        f"the installation is incomplete, there is neither {places}; install the wheel again, or run from a checkout",
        missing=name,
    )
