"""One value, one cell: how figures, names and counts are written in a table."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.text import Text

from pool.cli.printable import visible
from pool.cli.view import Quantiles, SizeView
from pool.units import format_size

STYLES = {
    "running": "green",
    "idle": "green",
    "ok": "green",
    "leased": "cyan",
    "starting": "yellow",
    "draining": "yellow",
    "suspect": "red",
    "stopping": "dim",
    "queued": "dim",
}


def cell(value: object) -> Text:
    return Text(plain(value))


def plain(value: object) -> str:
    return "-" if value is None or value == "" else visible(value)


def state(name: str | None) -> Text:
    return Text(plain(name), style=STYLES.get(name or "", ""))


def counts(found: Mapping[str, int]) -> Text:
    """`3 idle 1 leased`, without what is zero."""
    text = Text(" ").join(
        Text(f"{count} {visible(name)}", style=STYLES.get(name, "")) for name, count in found.items() if count
    )
    return text or Text("-")


def size(now: int, wanted: SizeView) -> str:
    """`3/4 (2-8)`: workers there are, workers wanted, and the range."""
    return f"{now}/{wanted.target} ({wanted.min}-{wanted.max})"


def memory(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else format_size(size_bytes)


def share(rate: float | None) -> str:
    """Rounded down, so that 100 % means all."""
    return "-" if rate is None else f"{math.floor(rate * 1000 + 1e-6) / 10:g} %"


def overhead(measured: Quantiles | None) -> str:
    if measured is None or measured.p50 is None or measured.p95 is None:
        return "-"
    return f"{measured.p50:.2f}/{measured.p95:.2f} ms"


def duration(seconds: float | None) -> str:
    """The two largest units: `42s`, `3m 5s`, `2h 10m`, `4d 3h`."""
    if seconds is None:
        return "-"
    left = int(seconds)
    for unit, size, below, smaller in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if left >= size:
            return f"{left // size}{unit} {left % size // smaller}{below}"
    return f"{left}s"
