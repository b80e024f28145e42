"""Runs plain jobs through a real client, daemon and runner and tells which project functions one of them called.

    python -m tests.support.tour      prints the list and the counts

Client and daemon are threads of this process; the worker is the real runner as a plain process (pool/testing.py). Of
client and daemon all calls between `Client.run` and its return are kept; of the worker those up to the encoding of Done,
because what it does afterwards is not on the job's way.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pool
from pool import config, testing
from pool.client import Client
from pool.daemon.daemon import Daemon
from pool.errors import PoolError
from tests.support import call_recorder

_CODE = "def main(x):\n    return x + 1\n"
#: The first jobs import what is imported late, and leave caches warm.
_WARM_UP_JOBS = 5
#: Long enough for the worker to have cleaned up, and far less than its heartbeat. Not a second, or each job could meet the
#: sweep of the connections.
_PAUSE_S = 0.83
#: A function is on the way if each of these jobs calls it. On a busy machine a job lasts so long that timers run out beside
#: it.
_JOBS = 6
#: The runner's part in the fork of the next child. It comes after a job, and beside one that lasts longer than 5 ms: on a
#: very busy machine beside each of them.
_NEXT_CHILD = {
    ("runner/runner.py", "Runner._go_on"),
    ("runner/runner.py", "Runner._conclude"),
    ("runner/runner.py", "Runner._begin_next"),
    ("runner/idle.py", "Idle.announce"),
    ("runner/idle.py", "Idle.end"),
    ("runner/idle.py", "Idle.go_on"),
    ("runner/children.py", "Children.fork"),
    ("runner/children.py", "Children._receive"),
    ("runner/children.py", "Children._park"),
    ("runner/children.py", "Child.__post_init__"),
    ("runner/children.py", "_pid_of"),
}
_PATIENCE_S = 60
_SUPPORT = Path(__file__).parent
_START = (
    "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); sys.path.append({support!r}); "
    "import call_recorder; call_recorder.install({options!r}); sys.path.pop(); "
    "from runner import runner; runner._FORK_AFTER_S = 60.0; "  # a job on a busy machine lasts longer than the real time
    "from runner.main import main; main(sys.argv[1:])"
)


@dataclass
class Tour:
    """`calls`: (process, file, function) in the order of time, of one job."""

    calls: list[tuple[str, str, str]] = field(default_factory=list)

    def functions(self, *processes):
        """Each function once, where it is called first."""
        return list(dict.fromkeys(call for call in self.calls if call[0] in processes))

    def files(self, *processes):
        return sorted({file for process, file, _ in self.calls if process in processes})


def record() -> Tour:
    """Start a daemon with one worker in this thread, run jobs from another one, and end it."""
    home = Path(tempfile.mkdtemp(prefix="pool.", dir="/tmp"))
    trace = home / "trace"
    call_recorder.make_file(trace)
    engine = testing.ProcessEngine()
    roots = {
        str(Path(pool.__file__).parent): "pool",
        str(engine.tree / "pool"): "pool",
        str(engine.tree / "runner"): "runner",
    }
    engine.start = _START.format(support=str(_SUPPORT), options=json.dumps([str(trace), roots]))
    here = _Threads(roots)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        settings = home / "pool.yaml"
        settings.write_text(json.dumps(_settings(home)))
        customer = threading.Thread(target=_jobs, args=(home, here))
        customer.start()
        here.watch("daemon")
        Daemon(config.load(settings), make_engine=lambda: engine).run()
        sys.setprofile(None)
        customer.join()
        if here.error is not None:
            raise here.error
        regions = call_recorder.read(trace)
        return _common([_merge(here.calls, window, regions) for window in here.windows])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        shutil.rmtree(home)


class _Threads:
    """Calls in the threads of this process."""

    def __init__(self, roots):
        self.calls = []
        self.windows = []
        self.error = None
        self._roots = {f"{root}/": name for root, name in roots.items()}

    def watch(self, process):
        sys.setprofile(self._recorder(process))

    def watch_new_threads(self, process):
        threading.setprofile(self._recorder(process))

    def _recorder(self, process):
        names = {}
        calls = self.calls
        name_of = call_recorder.name_of

        def note(frame, event, _argument):
            if event == "call":
                code = frame.f_code
                name = names.get(code)
                if name is None:
                    name = names[code] = name_of(code, self._roots)
                if name:
                    calls.append((time.monotonic_ns(), process, *name))

        return note


def _jobs(home, here):
    try:
        here.watch_new_threads("client")
        with Client(f"ipc://{home}/run/submit.sock") as client:
            _wait_ready(client)
            for number in range(_WARM_UP_JOBS):
                client.run(_CODE, entry="main", args=[number])
                time.sleep(_PAUSE_S / 10)
            time.sleep(_PAUSE_S)
            for _ in range(_JOBS):
                here.watch("client")
                begin = time.monotonic_ns()
                result = client.run(_CODE, entry="main", args=[41])
                here.windows.append((begin, time.monotonic_ns()))
                sys.setprofile(None)
                assert result.value == 42, result
                time.sleep(_PAUSE_S)
    except BaseException as error:  # noqa: BLE001 - raised again in the main thread
        here.error = error
    finally:
        threading.setprofile(None)
        os.kill(os.getpid(), signal.SIGTERM)


def _wait_ready(client):
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return client.run(_CODE, entry="main", args=[0])
        except PoolError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _settings(home):
    return {
        "daemon": {
            "run_dir": str(home / "run"),
            "state_dir": str(home / "state"),
            "durability": "none",
            "log_level": "error",
        },
        "pools": {"default": {"screen": "off", "preload": {"modules": []}, "size": {"min": 1, "max": 1}}},
    }


def _common(ways):
    """The shortest of the ways, with the functions that are on all of them."""
    on_all = set.intersection(*map(set, ways))
    return Tour([call for call in min(ways, key=len) if call in on_all and call[1:] not in _NEXT_CHILD])


def _merge(calls, window, regions):
    begin, end = window
    calls = [call for call in calls if begin <= call[0] <= end]
    done = min((at for region in regions for at, _, function, message in region if at >= begin and message == "Done"))
    for process, region in (("runner", _runner(regions)), ("child", _child(regions, begin, done))):
        calls += [(at, process, file, function) for at, file, function, _ in region if begin <= at <= done]
    return [call[1:] for call in sorted(calls)]


def _runner(regions):
    """The only process of a worker that decodes messages of the daemon."""
    return next(each for each in regions if any(name == "decode" and "/wire/" in file for _, file, name, _ in each))


def _child(regions, begin, done):
    """The one that was parked before the job came and did most then; the next one may be forked beside it."""
    parked = [each for each in regions if each and each[0][0] < begin and each is not _runner(regions)]
    return max(parked, key=lambda region: sum(begin <= call[0] <= done for call in region))


def main():
    tour = record()
    for process, file, function in tour.functions("client", "daemon", "runner", "child"):
        times = tour.calls.count((process, file, function))
        print(f"{process:8} {file:40} {function}{f'  x{times}' if times > 1 else ''}")
    for processes in (("client",), ("daemon",), ("client", "daemon"), ("runner",), ("child",), ("runner", "child")):
        calls = [call for call in tour.calls if call[0] in processes]
        print(
            f"{'+'.join(processes):16} {len(tour.functions(*processes)):4} functions, {len(calls):4} calls, "
            f"{len(tour.files(*processes)):3} files"
        )


if __name__ == "__main__":
    main()
