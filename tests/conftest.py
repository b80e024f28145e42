"""What holds for all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def pytest_configure():
    """Whoever runs the tests in the background may have SIGINT ignored, and so would every program that they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter):
    """Write the ids of what failed to the file that ./dev test names, for its own summary."""
    if path := os.environ.get("POOL_FAILED_TESTS"):
        failed = [*terminalreporter.stats.get("failed", ()), *terminalreporter.stats.get("error", ())]
        Path(path).write_text("".join(f"{test}\n" for test in dict.fromkeys(report.nodeid for report in failed)))
