"""A no-op in a warm pool against the least cost of its transport: two ZeroMQ round trips and one over a pipe.

    python -m benchmarks.transport [--rounds N] [--gap-ms MS] [--json FILE]

The floor has as many processes as the way of a job, and they do nothing but pass on: client ─ipc─▶ broker ─ipc─▶ runner
─pipe─▶ child, and back. Both arms take turns, with the same gap before each job, in which the workers become idle.
"""

import argparse
import contextlib
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import zmq

from benchmarks.daemon import started
from benchmarks.floor import NOOP, POOL, POOLS
from pool import Client

_spawn = multiprocessing.get_context("spawn")


def _child(pipe: Connection) -> None:
    """Until the runner is gone."""
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            pipe.send_bytes(pipe.recv_bytes())


def _runner(link: str) -> None:
    ours, theirs = _spawn.Pipe()
    _spawn.Process(target=_child, args=(theirs,), daemon=True).start()
    theirs.close()
    with zmq.Context() as context, context.socket(zmq.PAIR) as socket:
        socket.connect(link)
        while True:
            ours.send_bytes(socket.recv())
            socket.send(ours.recv_bytes())


def _broker(front: str, link: str) -> None:
    with zmq.Context() as context, context.socket(zmq.PAIR) as clients, context.socket(zmq.PAIR) as runner:
        clients.bind(front)
        runner.bind(link)
        while True:
            runner.send(clients.recv())
            clients.send(runner.recv())


@contextmanager
def floor() -> Iterator[Callable[[], None]]:
    """A function that makes the round trips once."""
    with tempfile.TemporaryDirectory(prefix="pt-") as name, zmq.Context() as context, ExitStack() as stack:
        front, link = f"ipc://{name}/front", f"ipc://{name}/link"
        processes = [_spawn.Process(target=_broker, args=(front, link)), _spawn.Process(target=_runner, args=(link,))]
        for process in processes:
            process.start()
            stack.callback(process.join)
            stack.callback(process.terminate)
        socket = stack.enter_context(context.socket(zmq.PAIR))
        socket.linger = 0
        socket.connect(front)

        def once() -> None:
            socket.send(NOOP.encode())
            if not socket.poll(120_000):
                raise TimeoutError("the floor is silent")
            socket.recv()

        once()
        yield once


def measure(arms: dict[str, Callable[[], None]], *, rounds: int, gap_s: float) -> dict[str, float]:
    """Median of each arm, in ms."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, once in arms.items():
            time.sleep(gap_s)
            began = time.perf_counter()
            once()
            found[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(times) for name, times in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--gap-ms", type=float, default=100.0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args(arguments)
    with floor() as trips, started(POOLS) as daemon, Client(daemon.endpoint, timeout=60) as client:

        def job() -> None:
            if client.run(NOOP, entry="main", args=[1], pool=POOL).value != 1:
                raise RuntimeError("a job has a wrong value")

        found = measure({"floor": trips, "pool": job}, rounds=options.rounds, gap_s=options.gap_ms / 1000)
    ratio = found["pool"] / found["floor"]
    print(f"| no-op, {options.gap_ms:g} ms apart | median ms |\n|---|---:|")
    print(f"| transport floor | {found['floor']:.2f} |\n| pool | {found['pool']:.2f} |\n| pool / floor | {ratio:.1f} |")
    if options.json:
        options.json.write_text(json.dumps(found | {"pool / floor": ratio}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
