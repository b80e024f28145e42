"""`./dev chaos --minutes M --seed S`: a campaign of faults, and its verdict."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.campaign import Campaign, judged
from tests.chaos.faults import BY_NAME, FAULTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long faults strike, at least (%(default)s)")
    parser.add_argument("--jobs", type=int, default=0, help="not before so many jobs have ended (%(default)s)")
    parser.add_argument("--faults", type=int, default=0, help="not before so many faults have struck (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the jobs and the faults (%(default)s)")
    parser.add_argument("--only", nargs="*", choices=sorted(BY_NAME), help="these faults instead of all")
    parser.add_argument("--durability", default="crash", choices=("crash", "power", "none"))
    parser.add_argument("--engine-pid-file", type=Path, help="of the dockerd that may be frozen for seconds; else none")
    parser.add_argument(
        "--engine-restarts",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="that dockerd is also ended and started again, which ends all its containers (default)",
    )
    parser.add_argument("--pause", type=float, default=0.3, help="mean seconds between two faults (%(default)s)")
    parser.add_argument("--apart", type=int, default=0, help="executions between two faults, within 5 s (%(default)s)")
    options = parser.parse_args()
    faults = {BY_NAME[name]: FAULTS[BY_NAME[name]] for name in options.only} if options.only else dict(FAULTS)
    directory = Path(tempfile.mkdtemp(prefix="chaos.", dir="/tmp"))
    print(f"records and the daemon's log: {directory}", flush=True)
    with Campaign(
        directory,
        seed=options.seed,
        durability=options.durability,
        engine_pid_file=options.engine_pid_file,
        engine_restarts=options.engine_restarts,
    ) as campaign:
        verdict = campaign.run(
            options.minutes * 60,
            faults,
            least_faults=options.faults,
            least_jobs=options.jobs,
            say=lambda text: print(text, flush=True),
            pause_s=options.pause,
            apart=options.apart,
        )
    print(judged(verdict, campaign.recoveries))
    return bool(verdict.violations)


if __name__ == "__main__":
    sys.exit(main())
