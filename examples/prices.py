"""Prepare the prices of the demo: once, from a package, into one file that workers load read-only.

    package `arch` (NCSA licence) ──pip download──▶ wheel ──unzip──▶ sp500.csv.gz ──check──▶ prices.npy + prices.npy.txt

Daily open, high, low and close of the S&P 500 index from 1999 to 2018, 5,031 trading days. The wheel is opened as the
archive it is: nothing of it is installed or run. The result is a numpy array of records with the fields of `DAY`;
source and licence are written beside it. A file that is there and passes the check is left alone.
"""

from __future__ import annotations

import argparse
import gzip
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

#: Names one version of the package `arch`, and the hashes of its wheels.
REQUIREMENTS = Path(__file__).with_name("prices-requirements.txt")
MEMBER = "arch/data/sp500/sp500.csv.gz"
DAYS = 5031
COLUMNS = ("open", "high", "low", "close")
DAY = np.dtype([("date", "datetime64[D]"), *((name, "f8") for name in COLUMNS)])
DOWNLOAD_TIMEOUT_S = 300
DEFAULT_OUTPUT = Path(".cache/prices.npy")


class PricesError(Exception):
    """The prices could not be prepared, or the file does not hold what it should."""


def check(prices: np.ndarray, *, days: int = DAYS) -> None:
    """Refuse anything but `days` increasing dates with finite, positive and consistent prices."""
    if prices.dtype != DAY or prices.shape != (days,):
        raise PricesError(f"expected {days} records of {DAY}, found {prices.shape} of {prices.dtype}")
    if not (np.diff(prices["date"]) > np.timedelta64(0, "D")).all():
        raise PricesError("the dates do not increase")
    for name in COLUMNS:
        column = prices[name]
        if not (np.isfinite(column) & (column > 0)).all():
            raise PricesError(f"the column {name} has values that are missing or not positive")
    if (prices["low"] > np.minimum(prices["open"], prices["close"])).any():
        raise PricesError("a day closes or opens below its low")
    if (prices["high"] < np.maximum(prices["open"], prices["close"])).any():
        raise PricesError("a day closes or opens above its high")


def load(path: Path, *, days: int = DAYS) -> np.ndarray:
    """The prices in `path`, checked."""
    try:
        prices: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise PricesError(f"{path} cannot be read as an array: {error}") from None
    check(prices, days=days)
    return prices


def from_wheel(wheel: Path) -> np.ndarray:
    """The array that the wheel's CSV holds; not checked yet."""
    with zipfile.ZipFile(wheel) as archive:
        try:
            packed = archive.read(MEMBER)
        except KeyError:
            raise PricesError(f"{wheel.name} has no {MEMBER}; take the version in {REQUIREMENTS.name}") from None
    frame = pd.read_csv(io.BytesIO(gzip.decompress(packed)), parse_dates=["Date"])
    prices = np.empty(len(frame), dtype=DAY)
    prices["date"] = frame["Date"].to_numpy().astype("datetime64[D]")
    for name in COLUMNS:
        prices[name] = frame[name.capitalize()].to_numpy(dtype="f8")
    return prices


def licence_of(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" in name and "LICENSE" in name.upper()]
        texts = [archive.read(name).decode() for name in names]
    return "\n".join(texts) or "See the package's own page.\n"


def download(directory: Path) -> Path:
    """Download the wheel with this interpreter's pip and its configuration."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(directory)]
    command += ["--requirement", str(REQUIREMENTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    wheels = sorted(directory.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise PricesError(f"pip could not download the package arch ({reason}); give its wheel with --wheel FILE")
    return wheels[0]


def write(prices: np.ndarray, output: Path, *, wheel: Path) -> None:
    """Whole or not at all, readable by the worker's user, with source and licence beside it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    note = f"S&P 500 index, daily, from {MEMBER} of {wheel.name} (package arch, NCSA licence):\n\n{licence_of(wheel)}"
    output.with_name(output.name + ".txt").write_text(note, encoding="utf-8")
    partial = output.with_name(output.name + ".partial")
    with partial.open("wb") as file:
        np.save(file, prices, allow_pickle=False)
    partial.chmod(0o644)
    partial.replace(output)


def prepare(output: Path, *, wheel: Path | None = None, days: int = DAYS) -> np.ndarray:
    """Make `output` unless it is there and right; return what it holds."""
    if output.exists():
        try:
            prices = load(output, days=days)
        except PricesError as error:
            say(f"{error}; making it again")
        else:
            say(f"{output} is ready ({describe(prices)})")
            return prices
    with tempfile.TemporaryDirectory(prefix="prices-") as scratch:
        if wheel is None:
            say("downloading the package arch (about 1 MB) for its S&P 500 data")
            wheel = download(Path(scratch))
        say(f"reading {MEMBER} from {wheel.name}")
        prices = from_wheel(wheel)
        check(prices, days=days)
        write(prices, output, wheel=wheel)
    say(f"wrote {output} ({describe(prices)})")
    return prices


def describe(prices: np.ndarray) -> str:
    return f"{len(prices):,} days, {prices['date'][0]} to {prices['date'][-1]}"


def say(text: str) -> None:
    print(f"prices: {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Prepare the daily prices that the demo's workers load.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="the .npy to write (%(default)s)")
    parser.add_argument("--wheel", type=Path, help="a wheel of the package arch that is at hand; nothing is downloaded")
    options = parser.parse_args(arguments)
    try:
        prepare(options.output, wheel=options.wheel)
    except (PricesError, OSError, zipfile.BadZipFile, subprocess.TimeoutExpired) as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
