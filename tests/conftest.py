"""What holds for all tests."""

from __future__ import annotations

import signal


def pytest_configure():
    """Whoever runs the tests in the background may have SIGINT ignored, and so would every program that they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
