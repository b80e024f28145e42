"""Releases of pyzmq as peers for the daemon's sockets: the one that is installed, and old ones, unpacked in .cache.

The wheels of the old releases are named by their hashes, so that they are the same whenever the tests run. `./dev test
--newest` runs the tests with the newest release: it is installed there.
"""

import fcntl
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import zmq

_HOME = Path(__file__).parents[2] / ".cache" / "pyzmq"
#: SHA-256 of the wheels for x86-64, of each release that is fetched. 26.2.0, the lowest that pyproject.toml allows, has
#: one for each Python; those of the older releases are for Python 3.6, and only their libzmq is used.
_WHEELS = {
    "16.0.4": ("5f4c356d278a1017caeec91194b499f550a2c16cf2cb0c6a5ce7f1b3dff8d323",),
    "17.1.2": ("c095b224300bcac61e6c445e27f9046981b1ac20d891b2f1714da89d34c637c8",),
    "19.0.2": ("00dca814469436455399660247d74045172955459c0bd49b54a540ce4d652185",),
    "26.2.0": (
        "689c5d781014956a4a6de61d74ba97b23547e431e9e7d64f27d4922ba96e9d6e",
        "7f98f6dfa8b8ccaf39163ce872bddacca38f6a67289116c8937a02e30bbe9711",
        "bea2acdd8ea4275e1278350ced63da0b166421928276c7c8e3f9729d7402a57b",
    ),
}
_OLD = ("--python-version", "36", "--abi", "cp36m", "--platform", "manylinux1_x86_64")
_UNREACHABLE = ("ConnectionError", "NewConnectionError", "Temporary failure", "Connection refused", "timed out")


def unpacked(version):
    """A directory with this release for this Python. Skips when the package index is not reached."""
    place = _HOME / f"{version}-{sys.implementation.cache_tag}"
    _HOME.mkdir(parents=True, exist_ok=True)
    with (_HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _unpack(_download(version, _HOME / "wheels" / place.name), place)
    return place


def _download(version, target):
    old = _OLD if int(version.partition(".")[0]) < 20 else ()
    target.mkdir(parents=True, exist_ok=True)
    hashes = " ".join(f"--hash=sha256:{each}" for each in _WHEELS[version])
    wanted = target / "wanted.txt"
    wanted.write_text(f"pyzmq=={version} {hashes}\n")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", *old]
    done = subprocess.run(
        [*command, "--require-hashes", "-d", target, "-r", wanted],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    if done.returncode and any(each in done.stderr for each in _UNREACHABLE):
        pytest.skip(f"the package index cannot be reached for pyzmq {version}: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    (wheel,) = target.glob("*.whl")
    return wheel


def _unpack(wheel, place):
    partial = place.with_name(f"{place.name}.partial")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(partial)
    partial.rename(place)


def libraries(version):
    """libsodium, where there is one, and libzmq of a release, or of the installed one: to be loaded in this order."""
    place = unpacked(version) if version else Path(zmq.__file__).parents[1] / "pyzmq.libs"
    found = [path for path in place.rglob("*.so*") if path.name.startswith(("libsodium-", "libzmq-"))]
    if not found:
        pytest.skip(f"the pyzmq in {place.parent} has no libzmq of its own")
    return sorted(found, key=lambda path: path.name)
