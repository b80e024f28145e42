"""How often the bytes of a large argument are copied, by process. Takes strace, and the right to use it.

    python -m benchmarks.copies [--mb 80] [--durability crash]

    in      bytes that the process has copied out of the kernel: read, recv and their kind
    out     bytes that it has copied into the kernel: write, send and their kind
    own     copies within the process: what its memory has grown by, without what came in and without what is mapped

Each is divided by the size of the argument. These are counts, which do not depend on the load of the machine. The job
does not look at its argument. To measure another checkout, run it there, with POOL_BENCH_IMAGE as its image.
"""

from __future__ import annotations

import argparse
import collections
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import daemon as daemons
from benchmarks.worker import cpu_file
from pool.client import Client

CONFIG = """
daemon: {{{{run_dir: {{directory}}/run, state_dir: {{directory}}/state, log_level: warning, durability: {durability}}}}}
pools:
  default:
    engine: docker
    image: "{{image}}"
    size: {{{{min: {{size}}, max: {{size}}}}}}
    recycle: {{{{max_jobs: 1000}}}}
    preload: {{{{modules: [numpy, pandas]}}}}
    limits: {{{{memory: 512m, wall_s: 300}}}}
"""
JOB = "def main(x):\n    return len(x)\n"
_IN = ("read", "pread64", "readv", "recvfrom", "recvmsg")
_OUT = ("write", "pwrite64", "writev", "sendto", "sendmsg")
_CALL = re.compile(r"^(\d+)\s+(?:<\.\.\. )?(\w+)[(\s].*= (\d+)$")
_ATTACH_S = 2.0


class Traced:
    """strace of these processes and all that they start: bytes by process and direction."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="copies.")  # noqa: SIM115 - until `stop`
        attach = [word for pid in pids for word in ("-p", str(pid))]
        calls = ",".join((*_IN, *_OUT))
        self._process = subprocess.Popen(
            ["strace", "-f", "-qq", "-s", "0", "-e", f"trace={calls}", "-o", self._file.name, *attach]
        )
        time.sleep(_ATTACH_S)

    def stop(self) -> collections.Counter[tuple[int, str]]:
        self._process.terminate()
        self._process.wait()
        found: collections.Counter[tuple[int, str]] = collections.Counter()
        for line in Path(self._file.name).read_text(encoding="utf-8", errors="replace").splitlines():
            if match := _CALL.match(line):
                thread, call, count = match.groups()
                found[int(thread), "in" if call in _IN else "out"] += int(count)
        return found


def _memory(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return {
        name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest
    }


class Peak:
    """By how much the memory of a process grows at most."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
        self._before = _memory(pid)["VmRSS"]

    def grown(self) -> int:
        return _memory(self._pid)["VmHWM"] - self._before


def measure(mb: int, durability: str) -> dict[str, dict[str, float]]:
    """Copies by process and kind."""
    config = CONFIG.format(durability=durability)
    with daemons.started(config, pools=("default",), size=1) as daemon:
        client = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.copies", "--client", daemon.submit, "--mb", str(mb)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdout.readline()
        runner, *others = in_container(daemon)
        roles = {"client": client.pid, "daemon": daemon.process.pid, "runner": runner}
        threads = {thread: role for role, pid in roles.items() for thread in _threads(pid)}
        traced = Traced([*roles.values(), *others])
        peaks = {role: Peak(pid) for role, pid in roles.items()}
        held = int(_ask(client))
        grown = {role: peak.grown() for role, peak in peaks.items()}
        threads |= {thread: role for role, pid in roles.items() for thread in _threads(pid)}
        moved: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for (thread, way), count in traced.stop().items():
            moved[threads.get(thread, "child")][way] += count
        client.communicate()
    grown["child"] = held
    size = mb * 1_000_000
    return {
        role: {
            "in": round(moved[role]["in"] / size, 1),
            "out": round(moved[role]["out"] / size, 1),
            "own": max(0.0, round((grown[role] - moved[role]["in"]) / size, 1)),
        }
        for role in ("client", "daemon", "runner", "child")
    }


def _ask(client: subprocess.Popen[str]) -> str:
    """Have the client run the job. Returns what the child has held more than that of a job without the argument."""
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write("go\n")
    client.stdin.flush()
    return client.stdout.readline()


def _threads(pid: int) -> list[int]:
    return [int(each.name) for each in Path(f"/proc/{pid}/task").iterdir()]


def in_container(daemon: daemons.Daemon) -> list[int]:
    """The runner, then the others."""
    (container,) = daemon.containers("default")
    shown = subprocess.run(
        ["docker", "inspect", "--format", "{{.State.Pid}}", container], capture_output=True, text=True, check=True
    )
    runner = int(shown.stdout)
    pids = (cpu_file(runner).parent / "cgroup.procs").read_text(encoding="ascii").split()
    return [runner, *(int(pid) for pid in pids if int(pid) != runner)]


def run_client(endpoint: str, mb: int) -> None:
    """In a process of its own: `go` on standard input, and what the child has held on standard output."""
    array = np.ones(mb * 1_000_000 // 8)
    with Client(f"ipc://{endpoint}", timeout=300) as client:
        small = client.run(JOB, entry="main", args=[[1]])
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        large = client.run(JOB, entry="main", args=[array])
        assert large.value == len(array), large
        sys.stdout.write(f"{large.usage.max_rss_bytes - small.usage.max_rss_bytes}\n")
        sys.stdout.flush()
        sys.stdin.readline()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=80)
    parser.add_argument("--durability", default="crash")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.client:
        run_client(options.client, options.mb)
        return
    found = measure(options.mb, options.durability)
    print("| copies | in | out | own |\n|---|---:|---:|---:|")
    for role, ways in found.items():
        print(f"| {role} | {ways['in']} | {ways['out']} | {ways['own']} |")
    print(f"| sum: {sum(sum(ways.values()) for ways in found.values()):.1f} | | | |")


if __name__ == "__main__":
    main()
