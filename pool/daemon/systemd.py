"""Messages to the service manager: log lines on stderr, and when the daemon is ready and when it stops."""

from __future__ import annotations

import logging
import os
import socket
import sys

import structlog

from pool.config import DaemonSettings


def setup_logging(settings: DaemonSettings) -> None:
    """Log to stderr: each line is a sentence with fields. Only programs call this."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    as_json = settings.log_format == "json"
    render: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if not as_json:
        plain = structlog.dev.plain_traceback  # what `format_exc_info` has made; else structlog warns about it
        render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks if as_json else structlog.processors.format_exc_info,
            _escape,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _escape(_: object, __: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape control characters: text of workers and clients reaches the log."""
    for name, value in entry.items():
        if isinstance(value, str) and not value.isprintable():
            entry[name] = value.encode("unicode_escape").decode("ascii")
    return entry


def notify(state: str) -> None:
    """Send READY=1, STATUS=... or STOPPING=1 to systemd, if it has asked for it. See sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    path = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), path)
        except OSError as error:
            structlog.get_logger(__name__).warning("systemd cannot be notified", action="notify", error=str(error))
