"""The ways to run one backtest, with the same source text on the same prices.

A sample has the caller's wall time and the backtest's own time; the difference is the overhead. Other work on the
machine slows the backtest down, so most of it does not count as overhead.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from pool import screen
from pool.client.sandbox import SandboxExecutor
from pool.errors import EngineError, PoolError

#: Days of made-up prices: ten years.
DAYS = 2520
#: Moving averages over the prices. `sweeps` is the number of pairs of windows, so that a backtest can have any length.
SOURCE = """
import time
import numpy as np
import pandas as pd


def closes(days):
    return 100 * np.exp(np.cumsum(np.random.default_rng(7).normal(0.0003, 0.01, days)))


def backtest(prices, sweeps):
    began = time.perf_counter()
    close = pd.Series(prices)
    daily = close.pct_change().fillna(0.0)
    best = -99.0
    for n in range(sweeps):
        fast, slow = close.rolling(5 + n % 15).mean(), close.rolling(30 + n % 70).mean()
        positions = (fast > slow).astype(float).shift(1).fillna(0.0)
        gains = positions * daily - 0.0005 * positions.diff().abs().fillna(0.0)
        best = max(best, float(gains.mean() / gains.std() * 252**0.5))
    return {"sharpe": round(best, 6), "run_s": time.perf_counter() - began}
"""
_PYTHON_IN_IMAGE = "/usr/bin/python3"
#: The Engine may take long on a busy machine.
_ENGINE_TIMEOUT_S = 300
_LOG_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. `sharpe` is None if it failed, and `error` says why; `route` is where the pool ran it."""

    wall_s: float
    run_s: float = 0.0
    sharpe: float | None = None
    route: str = ""
    error: str = ""

    @property
    def overhead_s(self) -> float:
        return self.wall_s - self.run_s


class Arm(Protocol):
    name: str

    def run(self, sweeps: int) -> Sample:
        """Run one backtest. A run that fails is a sample with an error."""


def _sample(began_s: float, found: Any, *, route: str = "", error: str = "") -> Sample:
    wall_s = time.perf_counter() - began_s
    if not isinstance(found, dict) or not {"sharpe", "run_s"} <= found.keys():
        return Sample(wall_s, route=route, error=error or f"it returned {type(found).__name__}")
    return Sample(wall_s, float(found["run_s"]), float(found["sharpe"]), route)


class InProcess:
    """A loop without a sandbox: screen the code, compile it, and run it in the loop's process."""

    name = "in-process, screen only"

    def __init__(self) -> None:
        self.prices = _functions()["closes"](DAYS)

    def run(self, sweeps: int) -> Sample:
        began_s = time.perf_counter()
        screen.check(SOURCE)
        return _sample(began_s, _functions()["backtest"](self.prices, sweeps))


def _functions() -> dict[str, Callable[..., Any]]:
    names: dict[str, Any] = {"__name__": "backtest"}
    exec(compile(SOURCE, "backtest", "exec"), names)  # noqa: S102 - our own text, as a loop would run what it wrote
    return names


class WarmPool:
    """The pool, through SandboxExecutor. The prices are sent with each job."""

    name = "warm pool"

    def __init__(self, sandbox: SandboxExecutor, prices: Any) -> None:
        self._sandbox = sandbox
        self._prices = prices

    def run(self, sweeps: int) -> Sample:
        began_s = time.perf_counter()
        found = self._sandbox.execute(SOURCE, [self._prices, sweeps], entry="backtest")
        return _sample(began_s, found.value, route=found.route, error=found.error)


class ColdContainer:
    """A container for each run: started, used once, removed. It makes the prices itself. Raises EngineError."""

    name = "cold container"

    def __init__(self, image: str) -> None:
        import docker
        from docker.utils import kwargs_from_env

        from pool.engines.connection import SDK_ERRORS, translate

        self._image = image
        self._errors, self._translate = SDK_ERRORS, translate
        try:
            self._client: Any = docker.APIClient(version="auto", timeout=_ENGINE_TIMEOUT_S, **kwargs_from_env())
            self._client.inspect_image(image)  # type: ignore[no-untyped-call]
        except SDK_ERRORS as error:
            raise translate(error, "look for the image", image=image) from error

    def run(self, sweeps: int) -> Sample:
        began_s = time.perf_counter()
        try:
            found = self._run(f"{SOURCE}\nimport json\nprint(json.dumps(backtest(closes({DAYS}), {sweeps})))\n")
        except self._errors as error:
            return _sample(began_s, None, error=self._translate(error, "run the container", image=self._image).message)
        except PoolError as error:
            return _sample(began_s, None, error=error.message)
        return _sample(began_s, found)

    def close(self) -> None:
        self._client.close()

    def _run(self, program: str) -> object:
        container = self._client.create_container(
            self._image,
            command=["-c", program],
            entrypoint=[_PYTHON_IN_IMAGE],
            user="65534:65534",
            environment={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            host_config=self._host_config(),
        )["Id"]
        try:
            self._client.start(container)
            status = self._client.wait(container)["StatusCode"]
            said = self._client.logs(container)[-_LOG_BYTES:].decode(errors="replace")
        finally:
            with suppress(*self._errors):
                self._client.remove_container(container, force=True)
        if status != 0:
            raise EngineError(f"the container ended with status {status}: {said[-500:]}")
        try:
            return json.loads(said.splitlines()[-1])
        except (ValueError, IndexError):
            raise EngineError(f"the container printed no result: {said[-500:]!r}") from None

    def _host_config(self) -> Any:
        return self._client.create_host_config(
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            tmpfs={"/tmp": "size=64m"},  # noqa: S108 - in the container
        )
