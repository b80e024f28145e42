"""A caller with one local worker, driven by lines of JSON: python host.py PATH...; the paths are put into sys.path.

    line out   {"pid": of the shell, "cgroup": why there is none} or {"error": class, "message": ...}
    line in    [code, arguments, limits, screened]      line out   {"outcome", "value", "reason", "free"}

It is a program so that the tests can start it as another user.
"""

import json
import sys

sys.path[:0] = sys.argv[1:]

from pool import values, wire  # noqa: E402
from pool.client.local import DEFAULTS  # noqa: E402
from pool.errors import PoolError  # noqa: E402
from pool.local.worker import LocalWorker, WorkerLimits  # noqa: E402

LIMITS = {name: getattr(DEFAULTS, name) for name in DEFAULTS.__struct_fields__} | {
    "wall_s": 120.0,
    "cpu_s": 60.0,
    "memory": 256 << 20,
    "tmp": 16 << 20,
    "processes": 24,
}
MIB = 1 << 20


def main():
    try:
        room = {name: LIMITS[name] for name in ("memory", "processes", "tmp")}
        worker = LocalWorker(WorkerLimits(result=32 * MIB, **room))
    except PoolError as error:
        say({"error": type(error).__name__, "message": error.message})
        return
    say({"pid": worker.pid, "cgroup": worker.no_cgroup, "home": str(worker._home)})
    for line in sys.stdin:
        code, arguments, limits, screened = json.loads(line)
        run = wire.Run(job_id="probe", epoch=0, entry="main", screened=screened, **LIMITS | limits)
        done, frames = worker.run(run, [code.encode(), b"", *values.encode((arguments, {}), max_bytes=MIB)])
        value = values.decode(frames[3:]) if frames[3:] else bytes(frames[2]).decode(errors="replace")
        say({"outcome": done.outcome, "value": value, "reason": done.reason, "free": worker.free()})
    worker.close()


def say(line):
    print(json.dumps(line, default=repr), flush=True)


if __name__ == "__main__":
    main()
