"""A daemon whose containers get another seccomp profile: HOME/profile.json instead of the one that comes with it."""

import sys
from pathlib import Path

from pool import config
from pool.daemon.daemon import Daemon
from pool.daemon.systemd import setup_logging
from pool.engines.docker import DockerEngine


def main():
    path = Path(sys.argv[sys.argv.index("--config") + 1])
    settings = config.load(path)
    setup_logging(settings.daemon)
    profile = (path.parent / "profile.json").read_text()
    sys.exit(Daemon(settings, make_engine=lambda: DockerEngine(seccomp=profile)).run())


if __name__ == "__main__":
    main()
