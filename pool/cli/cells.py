"""What all tables for people are made of: a table's form, and how a text, a state, a size or a duration is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from pool.printable import visible
from pool.status import Percentiles, PoolSize
from pool.units import format_size

STYLES = {
    "running": "green",
    "idle": "green",
    "ok": "green",
    "leased": "cyan",
    "found": "yellow",
    "starting": "yellow",
    "draining": "yellow",
    "suspect": "red",
    "stopping": "dim",
    "queued": "dim",
}


def columns(*headers: str, title: str | None = None) -> Table:
    """A table without lines; a header that begins with `>` is set to the right."""
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="bold",
        title=title and Text(title),
        title_justify="left",
    )
    for header in headers:
        right = header.startswith(">")
        table.add_column(Text(header.removeprefix(">")), justify="right" if right else "left", overflow="fold")
    return table


def cell(value: object) -> Text:
    return Text(plain(value))


def plain(value: object) -> str:
    return "-" if value is None or value == "" else visible(value)


def state(name: str | None) -> Text:
    return Text(plain(name), style=STYLES.get(name or "", ""))


def counts(found: Mapping[str, int]) -> Text:
    """The counts that are not zero: `3 idle 1 leased`."""
    text = Text(" ").join(
        Text(f"{count} {visible(name)}", style=STYLES.get(name, "")) for name, count in found.items() if count
    )
    return text or Text("-")


def size(now: int, wanted: PoolSize) -> str:
    """Workers, wanted workers and the range: `3/4 (2-8)`."""
    return f"{now}/{wanted.target} ({wanted.min}-{wanted.max})"


def memory(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else format_size(size_bytes)


def share(rate: float | None) -> str:
    """A share in percent. Rounded down, so that 100 % means all."""
    return "-" if rate is None else f"{math.floor(rate * 1000 + 1e-6) / 10:g} %"


def overhead(measured: Percentiles | None) -> str:
    if measured is None or measured.p50 is None or measured.p95 is None:
        return "-"
    return f"{measured.p50:.2f}/{measured.p95:.2f} ms"


def duration(seconds: float | None) -> str:
    """A duration in its two largest units: `42s`, `3m 5s`, `2h 10m`, `4d 3h`."""
    if seconds is None:
        return "-"
    left = int(seconds)
    for unit, size, below, smaller in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if left >= size:
            return f"{left // size}{unit} {left % size // smaller}{below}"
    return f"{left}s"
