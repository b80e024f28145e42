"""Releases of pyzmq, unpacked in .cache, as peers for the daemon's sockets."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

_HOME = Path(__file__).parents[2] / ".cache" / "pyzmq"
#: The wheels of old releases are for Python 3.6. Only their libzmq is used.
_OLD = ("--python-version", "36", "--abi", "cp36m", "--platform", "manylinux1_x86_64")
_UNREACHABLE = ("ConnectionError", "NewConnectionError", "Temporary failure", "Connection refused", "timed out")


def unpacked(version):
    """A directory with this release, or with the newest one of this month. Skips when the package index is not reached."""
    name = version or f"newest-{datetime.now(UTC):%Y-%m}"
    place = _HOME / name
    _HOME.mkdir(parents=True, exist_ok=True)
    with (_HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _unpack(_download(version), place)
    return place


def _download(version):
    old = _OLD if version is not None and int(version.partition(".")[0]) < 20 else ()
    target = _HOME / "wheels" / (version or "newest")
    requirement = f"pyzmq=={version}" if version else "pyzmq"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", *old]
    done = subprocess.run(
        [*command, "-d", target, requirement], capture_output=True, text=True, check=False, timeout=240
    )
    if done.returncode and any(each in done.stderr for each in _UNREACHABLE):
        pytest.skip(f"the package index cannot be reached for {requirement}: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    return max(target.glob("*.whl"), key=lambda path: path.stat().st_mtime)


def _unpack(wheel, place):
    partial = place.with_name(f"{place.name}.partial")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(partial)
    partial.rename(place)


def libraries(place):
    """libsodium, where there is one, and libzmq: to be loaded in this order."""
    found = [path for path in place.rglob("*.so*") if path.name.startswith(("libsodium-", "libzmq-"))]
    return sorted(found, key=lambda path: path.name)
