"""A daemon whose Engine takes two seconds to remove what an earlier daemon has left; plain processes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pool import config, testing
from pool.daemon.daemon import Daemon
from pool.daemon.systemd import setup_logging

if __name__ == "__main__":
    at_once = testing.FoundProcess.kill

    def kill(process: testing.FoundProcess) -> None:
        time.sleep(2)
        at_once(process)

    testing.FoundProcess.kill = kill
    settings = config.load(Path(sys.argv[sys.argv.index("--config") + 1]))
    setup_logging(settings.daemon)
    sys.exit(Daemon(settings, make_engine=testing.ProcessEngine).run())
