"""Run code that nobody has vetted in warm, locked-down containers. These names are the public interface."""

from pool._version import __version__

__all__ = ["__version__"]
