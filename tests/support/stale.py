"""A daemon whose workers were built from other sources, as after an upgrade without an image build."""

import sys
import tempfile
from pathlib import Path

from pool import config
from pool.daemon.daemon import Daemon
from pool.daemon.systemd import setup_logging
from pool.testing import ProcessEngine, lay_out

if __name__ == "__main__":
    settings = config.load(Path(sys.argv[sys.argv.index("--config") + 1]))
    setup_logging(settings.daemon)
    with tempfile.TemporaryDirectory(prefix="pool-stale-") as directory:
        tree = lay_out(Path(directory))
        (tree / "runner" / "extra.py").write_text("# not in this version\n")
        sys.exit(Daemon(settings, make_engine=lambda: ProcessEngine(sources=tree)).run())
