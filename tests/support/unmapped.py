"""A daemon whose workers cannot map a file of it, as where a security module of the host refuses that."""

import sys
from pathlib import Path

from pool import config
from pool.daemon.daemon import Daemon
from pool.daemon.systemd import setup_logging
from pool.testing import ProcessEngine

_START = (
    "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from runner import body; "
    "body._can_be_mapped = lambda _: False; from runner.main import main; main(sys.argv[1:])"
)


def engine():
    made = ProcessEngine()
    made.start = _START
    return made


if __name__ == "__main__":
    settings = config.load(Path(sys.argv[sys.argv.index("--config") + 1]))
    setup_logging(settings.daemon)
    sys.exit(Daemon(settings, make_engine=engine).run())
