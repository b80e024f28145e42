"""A daemon that is killed at the point POOL_FAILPOINT=<name>:<passes>, see failpoints.py; plain processes."""

import os
import sys
from pathlib import Path

from pool import config
from pool.daemon.daemon import Daemon
from pool.daemon.systemd import setup_logging
from pool.testing import ProcessEngine
from tests.support import failpoints

if __name__ == "__main__":
    settings = config.load(Path(sys.argv[sys.argv.index("--config") + 1]))
    setup_logging(settings.daemon)
    name, _, passes = os.environ["POOL_FAILPOINT"].rpartition(":")
    failpoints.arm(name, int(passes))
    sys.exit(Daemon(settings, make_engine=ProcessEngine).run())
