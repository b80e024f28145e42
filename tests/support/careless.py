"""Runs `python -m pool.testing` as a careless caller does: without standard streams, or deaf to signals."""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":
    if os.environ["CALLER"] == "closes":
        os.closerange(0, 3)
    else:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    os.execv(sys.executable, [sys.executable, "-m", "pool.testing", *sys.argv[1:]])
