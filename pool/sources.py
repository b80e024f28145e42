"""The digest of the code in an image.

The image holds a tree at /opt/pool: `runner/**.py`, and of `pool/` the modules named in LEAVES below a minimal
`pool/__init__.py`. The last step of the build writes the digest of this tree into the file with the tree's byte code
(runner/byte_code.py), and the runner sends it in Hello. Without such a file it computes the digest of its own tree. The
daemon compares it with the digest of the tree that it would put into an image. So a stale image is refused whatever its
labels claim, and nobody has to keep a version number up to date.

Standard library only: this module is copied into the image too.
"""

from __future__ import annotations

import os
from _blake2 import blake2b  # hashlib would load OpenSSL, which takes each runner 2 MB
from collections.abc import Mapping
from pathlib import Path

#: The directory of the tree in the image.
IMAGE_ROOT = Path("/opt/pool")

_DIGEST_BYTES = 32

#: The modules of `pool` that are copied into the image; a name that ends in a slash is a package with all its modules.
LEAVES = ("_version.py", "errors.py", "units.py", "outcome.py", "sources.py", "screen/", "values/", "wire/")

#: `pool/__init__.py` in the image. The real one imports the client, which the image does not have.
PACKAGE_INIT = b'"""The part of the project that runs inside a worker."""\n'


def read_tree(root: Path) -> dict[str, bytes]:
    """Every `*.py` below `root`, by its relative posix name."""
    found: dict[str, bytes] = {}
    for directory, _, names in os.walk(root):  # a third of the time of rglob, which is part of each worker's start
        for path in (Path(directory, name) for name in names if name.endswith(".py")):
            found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found


def digest(tree: Mapping[str, bytes]) -> str:
    """BLAKE2b in hex over the sorted names, lengths and contents, so that different trees have different input."""
    state = blake2b(digest_size=_DIGEST_BYTES)
    for name in sorted(tree):
        for part in (name.encode(), tree[name]):
            state.update(len(part).to_bytes(8, "big"))
            state.update(part)
    return state.hexdigest()
