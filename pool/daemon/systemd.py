"""Messages to the service manager: log lines on stderr, and when the daemon is ready and when it stops."""

from __future__ import annotations

import logging
import os
import select
import socket
import sys

import structlog

from pool.config import DaemonSettings

#: How long a line waits for a program that reads the log and is slow. The next ones do not wait, until it reads again.
_PATIENCE_MS = 500


def setup_logging(settings: DaemonSettings) -> None:
    """Log to stderr: each line is a sentence with fields. Only programs call this."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    as_json = settings.log_format == "json"
    render: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if not as_json:
        plain = structlog.dev.plain_traceback  # what `format_exc_info` has made; else structlog warns about it
        render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    stream = LogStream(sys.stderr.fileno())
    structlog.configure(
        processors=[
            stream.tell_lost,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks if as_json else structlog.processors.format_exc_info,
            _escape,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),  # type: ignore[arg-type] # it is used for nothing else
        cache_logger_on_first_use=True,
    )


class LogStream:
    """Lines for a descriptor. One that cannot be written is lost, and the next one that can has their number.

    A full disk, or a program that should read the log and has ended or stopped, does not stop the daemon.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._lost = 0

    def tell_lost(self, _: object, __: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """For structlog: how many lines before this one are missing."""
        return {**entry, "lost_lines": self._lost} if self._lost else entry

    def write(self, line: str) -> None:
        content = line.encode(errors="backslashreplace")
        try:
            while content:
                if not self._poll.poll(0 if self._lost else _PATIENCE_MS):
                    raise TimeoutError
                content = content[os.write(self._descriptor, content[: select.PIPE_BUF]) :]
        except OSError:
            self._lost += 1
        else:
            self._lost = 0

    def flush(self) -> None:
        """Nothing is kept."""


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
