"""A daemon whose loop does not go on for a while, once the file HOME/stall is there: plain processes.

It stops where SIGSTOP, a slow disk or a paused machine may stop it: after a poll, before deadlines are judged.
"""

import sys
import time
from pathlib import Path

from pool import config
from pool.daemon.daemon import Daemon
from pool.daemon.systemd import setup_logging
from pool.daemon.zmtp import Transport
from pool.testing import ProcessEngine

if __name__ == "__main__":
    path = Path(sys.argv[sys.argv.index("--config") + 1])
    stall, go_on = path.parent / "stall", path.parent / "go_on"
    run_once = Transport.run_once

    def run_once_and_stall(self, *arguments):
        run_once(self, *arguments)
        if stall.exists():
            while not go_on.exists():
                time.sleep(0.02)
            stall.unlink()

    Transport.run_once = run_once_and_stall
    settings = config.load(path)
    setup_logging(settings.daemon)
    sys.exit(Daemon(settings, make_engine=ProcessEngine).run())
