"""A real daemon for the benchmarks: the one of the tests, with the defaults of the configuration that tests change.

single   max_jobs 1: every job sees a container that no one has used
reuse    max_jobs 100
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pool import Client
from tests.support.daemons import DaemonProcess

IMAGE = os.environ.get("POOL_BENCH_IMAGE", "pool-worker:latest")
SIZE = 2
Pool = Mapping[str, Any]


def pool(workers: int = SIZE, **changes: object) -> Pool:
    """A pool of so many workers, with numpy and pandas; every key can be replaced."""
    size, modules = {"min": workers, "max": workers}, ["numpy", "pandas"]
    return {"image": IMAGE, "size": size, "preload": {"modules": modules}} | changes


POOLS = {
    "single": pool(size={"min": SIZE, "max": SIZE, "spare": SIZE}, recycle={"max_jobs": 1}),
    "reuse": pool(recycle={"max_jobs": 100}),
}


class Daemon(DaemonProcess):
    def __init__(self, pools: Mapping[str, Pool], *, engine: str = "docker", **settings: Any) -> None:
        screened = {name: {"screen": "standard", **each} for name, each in pools.items()}
        super().__init__(
            screened, engine=engine, wait_ready=False, **{"durability": "crash", "log_level": "warning"} | settings
        )

    def wait_idle(self, pool: str = "default") -> None:
        """Wait until every worker of the pool is idle, and none is being started or stopped."""

        def idle() -> bool:
            found = self.pool(pool)
            return [each["state"] for each in found["workers"]] == ["idle"] * found["size"]["min"]

        self.until(idle)

    def containers(self, pool: str) -> list[str]:
        return [each["container"] for each in self.workers(pool) if each["container"]]


@contextmanager
def started(pools: Mapping[str, Pool] = POOLS, **options: Any) -> Iterator[Daemon]:
    """A daemon with idle workers in its pools. `options`: those of Daemon."""
    with Daemon(pools, **options) as daemon:
        for name in pools:
            daemon.wait_idle(name)
        yield daemon


def closed_loop(endpoint: str, clients: int, seconds: float = 2.0) -> float:
    """Jobs a second of so many clients of the default pool with one job after the other."""
    end, done = time.monotonic() + seconds, []

    def loop() -> None:
        with Client(endpoint, timeout=120) as client:
            while time.monotonic() < end:
                assert client.run("result = 1").ok
                done.append(1)

    threads = [threading.Thread(target=loop) for _ in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(done) / (time.monotonic() - began)
