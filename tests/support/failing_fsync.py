"""A daemon whose disk fails: fsync is an I/O error while HOME/fsync-fails exists. Its workers are plain processes."""

import errno
import os
import sys
from pathlib import Path

from pool.testing import main


def fail_while_there_is(path):
    """So does every fsync of this process that Python calls. With `durability: power` each commit calls one."""
    real = os.fsync

    def fsync(fd):
        if path.exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    os.fsync = fsync


if __name__ == "__main__":
    fail_while_there_is(Path(sys.argv[sys.argv.index("--config") + 1]).with_name("fsync-fails"))
    main()
