"""A daemon that gives the memory that it does not use back to the kernel at SIGUSR2, so that what it holds can be measured."""

import ctypes
import gc
import signal

from pool.cli.daemon import app


def give_back(*_):
    """Python's garbage, then what malloc keeps of freed blocks."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, give_back)
    app()
