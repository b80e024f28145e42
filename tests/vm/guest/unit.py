"""The daemon as a unit of systemd, with the unit files of `config/`: it starts, survives `kill -9`, and stops clean."""

import os
import signal
import subprocess
import time
from pathlib import Path

from guest.service import IMAGES, STOP_S, Service

from pool.model import Outcome

UNIT = Path("/etc/systemd/system/pool.service")
CONFIG = Path("/etc/pool/pool.yaml")
#: The daemon's own defaults, which the unit files rely on.
RUN_DIR, STATE_DIR = Path("/run/pool"), Path("/var/lib/pool")


class Unit(Service):
    """`with Unit(FILE, ...) as unit:` is a started unit, with a worker when the block begins."""

    def __init__(self, file, **template):
        super().__init__(f"unit-{file.stem}", **template)
        self._file = file
        self.run_dir, self.state_dir = RUN_DIR, STATE_DIR
        self._config["daemon"] = {"image_dir": IMAGES}

    def _begin(self):
        CONFIG.parent.mkdir(exist_ok=True)
        (self.home / "pool.yaml").rename(CONFIG)
        text = self._file.read_text().replace("/opt/pool/.venv/bin/", "/opt/pool/bin/")
        UNIT.write_text(text, encoding="utf-8")
        systemctl("daemon-reload")
        systemctl("start", "pool")

    def _ended(self):
        state = systemctl("show", "--value", "--property", "ActiveState", "pool")
        return state if state in ("failed", "inactive") else None

    def stop(self):
        """The exit status of the daemon."""
        systemctl("stop", "pool")
        return int(systemctl("show", "--value", "--property", "ExecMainStatus", "pool"))

    def words(self):
        command = ["journalctl", "--unit", "pool", "--output", "cat", "--no-pager"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout[-3000:]

    @property
    def pid(self):
        return int(systemctl("show", "--value", "--property", "MainPID", "pool"))


def survives_a_kill(unit):
    """The next daemon, which systemd starts, has the same worker and the result of a job that ran meanwhile."""
    first, worker = unit.pid, unit.worker()["container"]
    with unit.client() as client:
        job = client.submit("import time\ntime.sleep(20)\nresult = 1")
        while not unit.worker()["job"]:
            time.sleep(1)
        os.kill(first, signal.SIGKILL)
        result = client.result(job)
    same = unit.pid != first and unit.worker()["container"] == worker
    seen = f"{result.outcome}; {'the same worker' if same else 'another worker'}"
    return (result.outcome, same) == (Outcome.OK, True), seen


def systemctl(*arguments):
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=STOP_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"systemctl {arguments[0]} ended with {done.returncode}: {done.stderr[-1000:]}")
    return done.stdout.strip()
