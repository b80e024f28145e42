"""Builds the worker image: `pool-admin image build`.

    base         a registry's slim Python image where one is reachable, else Debian's packages    (base.py)
      │
    libraries    requirements, downloaded by pip on the host, laid out without anything else      (libraries.py)
      │          pool-libraries:<digest of all inputs>, made again when that changes
      │
    worker       the runner's tree on top, labelled with its version and digest                   (worker.py)

Without a Docker Engine the same steps make unpacked roots for the engine oci (direct.py).

No build step has a network inside a container, and nothing is installed in the worker image itself.
"""

from pool.assets import runner_tree
from pool.images.base import PYTHONS
from pool.images.libraries import PROFILES, profile
from pool.images.worker import DEFAULT_TAG, build

__all__ = ["DEFAULT_TAG", "PROFILES", "PYTHONS", "build", "profile", "runner_tree"]
