"""The endpoint that Prometheus reads. It has threads of its own, but the figures are read in the loop's thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import structlog

from pool.config import MetricsSettings
from pool.daemon.engine_executor import CallSoon
from pool.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import Metric

log = structlog.get_logger(__name__)

#: How long a request waits for the loop, which never takes this long.
_PATIENCE_S = 10.0


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
            from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
        except ImportError:
            text = "metrics.port: prometheus-client is not installed; pip install 'warm-container-pool[metrics]'"
            raise ConfigError(text) from None
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(self)  # type: ignore[arg-type, unused-ignore]  # it has what a Collector has
        try:
            server, thread = start_http_server(port, addr=address, registry=registry)
        except OSError as error:
            raise ConfigError(f"metrics: cannot listen on {address} port {port}: {error.strerror or error}") from None
        host = f"[{address}]" if ":" in address else address
        self.endpoint = f"{host}:{server.server_port}"
        log.info("Prometheus may read the metrics", action="metrics", endpoint=self.endpoint)

        def end() -> None:
            server.shutdown()
            thread.join()
            server.server_close()

        self._end = end
