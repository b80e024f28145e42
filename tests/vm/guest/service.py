"""The daemon of one column: started from the installed wheel, asked through its commands, stopped as a service is."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from guest import containers

from pool.client import Client

TOOLS = Path("/opt/pool/bin")
#: Unpacked, for the engine oci.
IMAGES = "/srv/images"
#: Emulated, all is many times slower than on the machine it stands for.
READY_S, COMMAND_S, STOP_S, JOB_S = 400, 120, 120, 240

TEMPLATE = {
    "image": "pool-worker:vm",
    "size": {"min": 1, "max": 1},
    "recycle": {"max_jobs": 1000},
    "screen": "off",  # what stops these jobs is to be the kernel
    "limits": {"wall_s": 120, "cpu_s": 120, "memory": "256m", "tmp": "16m", "processes": 24},
    "boot_timeout_s": 300,
    "heartbeat_s": 10,
}


class Service:
    """`with Service(name, apparmor=...) as service:` has come up when the block begins, or `refused` says why not."""

    def __init__(self, name, **template):
        self.home = Path("/srv", name)
        self.run_dir, self.state_dir = self.home / "run", self.home / "state"
        self.log = self.home / "log"
        self.refused = ""
        self._process = None
        self._config = {
            "daemon": {
                "run_dir": str(self.run_dir),
                "state_dir": str(self.state_dir),
                "image_dir": IMAGES,
                "durability": "none",
            },
            "pools": {"default": TEMPLATE | template},
        }

    def __enter__(self):
        self.home.mkdir(parents=True)
        config = self.home / "pool.yaml"
        config.write_text(json.dumps(self._config))
        self._begin()
        try:
            self.refused = self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _begin(self):
        with self.log.open("wb") as log:
            command = [TOOLS / "pool-daemon", "--config", self.home / "pool.yaml"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"NO_COLOR": "1"})

    def _ended(self):
        """How it has ended; None while it runs."""
        return self._process.poll()

    def _wait(self):
        """Wait until a worker is idle; the reason if none will be."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if (ended := self._ended()) is not None:
                return f"the daemon ended with {ended}: {self.words()}"
            status, answer = self.admin("status", "--json")
            if status in (0, 4) and answer["pools"]:
                (pool,) = answer["pools"]
                if pool["breaker"]["open"]:
                    return pool["breaker"]["last_reason"]
                if any(each["state"] == "idle" for each in pool["workers"]):
                    return ""
            time.sleep(2)
        return f"no worker was ready in time: {self.words()}"

    def admin(self, *arguments):
        """Exit status and JSON of a `pool-admin` command; what it wrote instead, if that is no JSON."""
        command = [TOOLS / "pool-admin", "--run-dir", self.run_dir, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        try:
            return done.returncode, json.loads(done.stdout)
        except ValueError:
            return done.returncode, (done.stdout + done.stderr).strip()

    def doctor(self):
        return self.admin("doctor", "--config", self.home / "pool.yaml", "--json")

    def pool(self):
        return self.admin("status", "--json")[1]["pools"][0]

    def container_pid(self):
        """Host pid of the first process of the worker's container."""
        container = self.worker()["container"]
        place = self.state_dir / "oci/containers"
        for found in place.glob(f"{container}*/pid") if place.exists() else ():
            return int(found.read_text())
        return containers.connect().inspect_container(container)["State"]["Pid"]

    def containers(self):
        """All that are left of it, whatever engine has started them."""
        started = containers.connect().containers(all=True, filters={"label": "pool.owner"}) if docker_runs() else []
        return [*started, *(self.state_dir / "oci/containers").glob("*")]

    def worker(self):
        """The worker that the jobs of one client meet first."""
        return self.pool()["workers"][0]

    def client(self):
        return Client(f"ipc://{self.run_dir}/submit.sock", timeout=JOB_S)

    def stop(self):
        """Its exit status; killed if it does not end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def words(self):
        return self.log.read_text(errors="replace")[-3000:]


def docker_runs():
    return subprocess.run(["systemctl", "--quiet", "is-active", "docker"], check=False).returncode == 0
