"""A daemon whose clock of the day is wrong by as many seconds as the file HOME/clock says; plain processes."""

import sys
import time
from pathlib import Path

from pool import config
from pool.daemon.daemon import Daemon
from pool.daemon.systemd import setup_logging
from pool.testing import ProcessEngine

if __name__ == "__main__":
    path = Path(sys.argv[sys.argv.index("--config") + 1])
    right, off_by = time.time, path.parent / "clock"
    time.time = lambda: right() + float(off_by.read_text())
    settings = config.load(path)
    setup_logging(settings.daemon)
    sys.exit(Daemon(settings, make_engine=ProcessEngine).run())
