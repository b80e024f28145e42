"""The endpoint that Prometheus reads. It has threads of its own, but the figures are read in the loop's thread.

Every user of the host can connect to it. So it has few connections, and each has a deadline.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog

from pool.config import MetricsSettings
from pool.daemon.engine_executor import CallSoon
from pool.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import Metric

log = structlog.get_logger(__name__)

#: How long a request waits for the loop, which never takes this long.
_PATIENCE_S = 10.0
#: Each has a thread. A further one ends the oldest, so that none keeps Prometheus out.
_CONNECTIONS = 8
#: How long a request, or the peer's reading of the answer, may stand still.
_STALLED_S = 10.0


class _Handler(WSGIRequestHandler):
    timeout = _STALLED_S

    def log_message(self, *_: object) -> None:
        """Nothing that a peer sends gets into the log."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._open: dict[socket.socket, None] = {}  # by age
        self._changed = threading.Condition()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Called in the thread that accepts: a flood waits for it."""
        with self._changed:
            if len(self._open) >= _CONNECTIONS:
                with contextlib.suppress(OSError):  # its peer has gone
                    next(iter(self._open)).shutdown(socket.SHUT_RDWR)
            room = self._changed.wait_for(lambda: len(self._open) < _CONNECTIONS, _PATIENCE_S)
            self._open[request] = None
        if room:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        with self._changed:
            self._open.pop(request, None)
            self._changed.notify_all()
        super().shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        """A peer that stalls or goes is no error of ours."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class Exporter:
    """`endpoint`: where it listens, host:port; None if the settings name no port."""

    def __init__(self, settings: MetricsSettings, families: Callable[[], list[Metric]], call_soon: CallSoon) -> None:
        """`families` is called in the loop's thread. Raises ConfigError."""
        self.endpoint: str | None = None
        self._families = families
        self._call_soon = call_soon
        self._end: Callable[[], None] = lambda: None
        if settings.port is not None:
            self._listen(settings.address, settings.port)

    def collect(self) -> Iterable[Metric]:
        """Called by prometheus_client in the thread of a request."""
        answer: Future[list[Metric]] = Future()

        def read() -> None:
            try:
                answer.set_result(self._families())
            except Exception as error:  # noqa: BLE001 - raised in the thread of the request
                answer.set_exception(error)

        self._call_soon(read)
        return answer.result(_PATIENCE_S)

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before the first request."""
        return ()

    def close(self) -> None:
        self._end()

    def _listen(self, address: str, port: int) -> None:
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
        except ImportError:
            text = "metrics.port: prometheus-client is not installed; pip install 'warm-container-pool[metrics]'"
            raise ConfigError(text) from None
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(self)  # type: ignore[arg-type, unused-ignore]  # it has what a Collector has
        try:
            kind = _Server6 if ":" in address else _Server
            server = make_server(address, port, make_wsgi_app(registry), kind, _Handler)
        except OSError as error:
            raise ConfigError(f"metrics: cannot listen on {address} port {port}: {error.strerror or error}") from None
        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        host = f"[{address}]" if ":" in address else address
        self.endpoint = f"{host}:{server.server_port}"
        log.info("Prometheus may read the metrics", action="metrics", endpoint=self.endpoint)

        def end() -> None:
            server.shutdown()
            thread.join()
            server.server_close()

        self._end = end
