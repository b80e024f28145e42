"""Where things are, and the environment in which every process of a fuzzer runs."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".cache/fuzz"
SEEDS = ROOT / "tests/fuzz/corpus"


def settle(module: str) -> None:
    """Begin anew where sets are in the same order each time, and numpy starts no threads whose stacks would count."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], _environment())


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "worker_image")]),
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
