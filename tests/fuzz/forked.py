"""One target without atheris, some times as fast: `python -m tests.fuzz.forked TARGET INPUTS DIRECTORY SEED`.

    parent ──fork──▶ child: bend an input, write it to a shared page, run it, count; again and again
           ◀─page──  looks on: a child that dies by a signal, raises, or spends too long on one input is a finding
           writes the input to DIRECTORY/crash-*, hang-* or broke-*, and forks a child that goes on with the next one

The inputs follow from the seed, from what was kept and from the findings before: one input of each kind that the target tells apart.
"""

import contextlib
import faulthandler
import gc
import hashlib
import json
import mmap
import os
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil

from tests.fuzz import corpus
from tests.fuzz.place import settle
from tests.fuzz.target import Target, load
from tests.fuzz.watch import Watch, peak_rss

_ADDRESS_SPACE = 4 << 30
_HANG_S = 30.0  #: of CPU, for one input
_LOOK_S = 0.2
_MOST_FINDINGS = 200
_MOST_KEPT = 4000
_KEPT_BYTES = 1024
_WRITE_S = 10.0
_FROM_KEPT = 0.5  #: of the inputs, the share that may begin with one that was kept
_PAGE = 16 << 20
_HEAD = struct.Struct("<QQQdQ")  #: inputs begun, kinds seen, size of the input, slowest in seconds, size of the error


class Page:
    """What the child reports: figures, its present input, and the error that ends it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _PAGE)

    def put(self, begun: int, kinds: int, data: bytes, slowest: float) -> None:
        self._memory[: _HEAD.size] = _HEAD.pack(begun, kinds, len(data), slowest, 0)
        self._memory[_HEAD.size : _HEAD.size + len(data)] = data

    def put_error(self, text: str) -> None:
        begun, kinds, size, slowest, _ = _HEAD.unpack_from(self._memory)
        encoded = text.encode(errors="replace")[-65536:]
        _HEAD.pack_into(self._memory, 0, begun, kinds, size, slowest, len(encoded))
        self._memory[_HEAD.size + size : _HEAD.size + size + len(encoded)] = encoded

    def figures(self) -> tuple[int, int, float]:
        begun, kinds, _, slowest, _ = _HEAD.unpack_from(self._memory)
        return begun, kinds, slowest

    def input(self) -> bytes:
        size = _HEAD.unpack_from(self._memory)[2]
        return self._memory[_HEAD.size : _HEAD.size + size]

    def error(self) -> str:
        _, _, size, _, length = _HEAD.unpack_from(self._memory)
        return self._memory[_HEAD.size + size : _HEAD.size + size + length].decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Finding:
    kind: str  #: crash, hang or broke
    data: bytes
    text: str

    @property
    def name(self) -> str:
        return f"{self.kind}-{hashlib.sha256(self.data).hexdigest()[:12]}"


@dataclass
class Inputs:
    """Bends seeds and what was kept."""

    target: Target
    seeds: list[bytes]
    directory: Path | None
    kinds: set[str] = field(default_factory=set)
    first: int = 0  #: how many of them were seeds from the beginning

    def __post_init__(self) -> None:
        self.first = self.first or len(self.seeds)

    def make(self, random: Random) -> bytes:
        data = random.choice(self.seeds if random.random() < _FROM_KEPT else self.seeds[: self.first])
        for _ in range(random.choice((1, 1, 1, 1, 2))):
            data = self.target.mutate(data, random)
        return data

    def keep(self, data: bytes, kind: str | None) -> None:
        if kind is None or kind in self.kinds or len(self.kinds) >= _MOST_KEPT or len(data) > _KEPT_BYTES:
            return
        self.kinds.add(kind)
        self.seeds.append(data)
        if self.directory is not None:
            corpus.write(self.directory, [data])


def _child(watch: Watch, inputs: Inputs, page: Page, numbers: range, seed: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.set_threshold(20_000, 20, 20)
    random, slowest = Random(seed << 40 | numbers.start), page.figures()[2]
    for number in numbers:
        data = inputs.make(random)
        page.put(number + 1, len(inputs.kinds), data, slowest)
        spent, kind = watch.told(data)
        slowest = max(slowest, spent)
        inputs.keep(data, kind)
    page.put(numbers.stop, len(inputs.kinds), b"", slowest)


def _fork(work: Callable[[], None], page: Page) -> int:
    pid = os.fork()
    if pid:
        return pid
    faulthandler.disable()  # a crash is a finding and is reported as one
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the parent tells it
        with contextlib.suppress(BaseException):
            page.put_error(traceback.format_exc())
    finally:
        os._exit(status)


def _follow(pid: int, page: Page, hang_s: float, look: Callable[[], None] = lambda: None) -> tuple[str, str] | None:
    """Wait for the child. None when it ended well, else the kind of the finding and what is known of it."""
    process, at, since = psutil.Process(pid), -1, 0.0
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        begun, spent = page.figures()[0], sum(process.cpu_times()[:2])
        if begun != at:
            at, since = begun, spent
        elif spent - since > hang_s:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "hang", f"more than {hang_s:.0f} s of CPU for one input"
        time.sleep(_LOOK_S if at > 0 else 0.01)
        look()
    if os.WIFSIGNALED(status):
        return "crash", signal.Signals(os.WTERMSIG(status)).name
    return ("broke", page.error()) if status else None


def findings(
    watch: Watch,
    inputs: Inputs,
    page: Page,
    *,
    count: int,
    seed: int = 0,
    hang_s: float = _HANG_S,
    look: Callable[[], None] = lambda: None,
) -> Iterator[Finding]:
    """Run so many inputs, and give each that breaks the contract, as it is found. `look` is called now and then."""
    first = 0
    gc.freeze()
    while first < count:
        numbers = range(first, count)
        pid = _fork(lambda numbers=numbers: _child(watch, inputs, page, numbers, seed), page)  # type: ignore[misc]
        found = _follow(pid, page, hang_s, look)
        if found is None:
            return
        yield Finding(found[0], page.input(), found[1])
        first = max(page.figures()[0], first + 1)


def shrink(target: Target, finding: Finding, *, hang_s: float = _HANG_S, trials: int = 60) -> Finding:
    """The same kind of finding with pieces of the input cut out, as far as that is cheap."""
    if finding.kind == "hang":
        return finding
    watch, data = Watch(target, every=1 << 40), finding.data
    size = len(data) // 2
    while size and trials:
        at = 0
        while at < len(data) and trials:
            trials -= 1
            shorter = data[:at] + data[at + size :]
            page = Page()
            page.put(0, 0, shorter, 0.0)
            found = _follow(_fork(lambda shorter=shorter: watch.told(shorter) and None, page), page, hang_s)  # type: ignore[misc]
            if found is not None and found[0] == finding.kind:
                data, finding = shorter, Finding(finding.kind, shorter, found[1])
            else:
                at += size
        size //= 2
    return finding


class _Reporter:
    """Writes the figures of a run, now and then."""

    def __init__(self, path: Path, page: Page) -> None:
        self._path, self._page = path, page
        self._started = self._written = time.monotonic()
        self.found = 0

    def __call__(self) -> None:
        if time.monotonic() - self._written > _WRITE_S:
            self.write()

    def write(self) -> None:
        self._written = time.monotonic()
        inputs, kinds, slowest = self._page.figures()
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        running = [process.cpu_times() for process in psutil.Process().children()]
        self._path.write_text(json.dumps({
            "inputs": inputs,
            "seconds": self._written - self._started,
            "cpu_s": usage.ru_utime + usage.ru_stime + sum(times.user + times.system for times in running),
            "slowest_ms": slowest * 1e3,
            "most_bytes": 0,
            "peak_rss": max(usage.ru_maxrss * 1024, peak_rss()),
            "kinds": kinds,
            "findings": self.found,
        }))  # fmt: skip


def main() -> int:
    name, count, directory, seed = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    target, page, kept = load(name), Page(), directory / "kept"
    kept.mkdir(parents=True, exist_ok=True)
    seeds = [*corpus.read(name), *target.found(), *(path.read_bytes() for path in sorted(kept.iterdir()))]
    inputs, watch = Inputs(target, seeds, kept), Watch(target, every=1 << 40)
    reporter = _Reporter(directory / f"figures-{seed}", page)
    for finding in findings(watch, inputs, page, count=count or target.inputs, seed=seed, look=reporter):
        small = shrink(target, finding)
        (directory / small.name).write_bytes(small.data)
        print(f"{small.name}: {small.text}", flush=True)
        reporter.found += 1
        if reporter.found == _MOST_FINDINGS:
            break
    reporter.write()
    return int(reporter.found > 0)


if __name__ == "__main__":
    settle("tests.fuzz.forked")
    sys.exit(main())
