"""Memory: of the daemon, idle and with jobs that wait, and of one idle worker.

    python -m benchmarks.memory [--waiting 100000] [--json FILE]

The daemon's is its resident set, with one worker that is a plain process and has a job, so every other job waits. The
worker's is the proportional set size (PSS) of all processes of its container, with numpy, pandas and the parked child.
The init of a child's pid namespace has no memory of its own but runs in that of the zygote, which is counted once.
"""

import argparse
import ctypes
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.acceptance import daemon, rss_bytes
from benchmarks.worker import Worker
from pool.engines.docker import DockerEngine

MB = 1e6
_libc = ctypes.CDLL(None)
#: kcmp(2): the call's number, and its kind of comparison.
_KCMP = {"x86_64": 312, "aarch64": 272}
_KCMP_VM = 1
_JOB = "result = 1"
#: A child for which no job comes warms up: its pages are part of an idle worker. The runner
#: unmaps files 2 s after its start.
_SETTLE_S = 3.0


def of_daemon(waiting: int) -> tuple[float, float]:
    """MB, idle and with so many jobs that wait."""
    with daemon("crash") as running, running.client(timeout=600) as client:
        running.wait_idle()
        idle = rss_bytes(running)
        client.submit("import time; time.sleep(3000)")
        refused = client.submit_many({"code": _JOB} for _ in range(waiting)).refused
        if refused:
            raise SystemExit(f"{len(refused)} jobs were refused, such as: {next(iter(refused.values()))}")
        return idle / MB, rss_bytes(running) / MB


def of_worker() -> tuple[float, float]:
    """MB of PSS, and what of it is in no file."""
    engine = DockerEngine()
    worker = Worker(engine, preload="numpy,pandas")
    try:
        worker.send(b"def main(x):\n    return x\n")
        time.sleep(_SETTLE_S)
        pids = _with_own_memory(worker.pids())
        return sum(_pss_bytes(pid, "Pss:") for pid in pids) / MB, sum(_pss_bytes(pid, "Pss_Anon:") for pid in pids) / MB
    finally:
        worker.close()
        engine.close()


def _with_own_memory(pids: Sequence[int]) -> list[int]:
    """One of those processes that share their memory."""
    found: list[int] = []
    for pid in pids:
        if not any(_share_memory(pid, other) for other in found):
            found.append(pid)
    return found


def _share_memory(one: int, other: int) -> bool:
    """False where the kernel cannot tell."""
    return bool(_libc.syscall(_KCMP[os.uname().machine], one, other, _KCMP_VM, 0, 0) == 0)


def _pss_bytes(pid: int, field: str) -> int:
    """0 for a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args(arguments)
    idle, waiting = of_daemon(options.waiting)
    pss, anonymous = of_worker()
    found = {
        "daemon, idle": idle,
        f"daemon, {options.waiting:,} jobs wait": waiting,
        "idle worker, PSS": pss,
        "idle worker, PSS without files": anonymous,
    }
    print("| memory | MB |\n|---|---:|")
    for name, figure in found.items():
        print(f"| {name} | {figure:.0f} |")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
