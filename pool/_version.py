"""The one place that holds the version; the image's label and the handshake carry it."""

__version__ = "0.1.0"
