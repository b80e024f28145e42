"""An empty directory with a fresh environment, into which the built wheel is installed as a user installs it."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import docker
from docker.utils import kwargs_from_env

ROOT = Path(__file__).parents[2]
TAG = "pool-worker-newcomer:test"
CONFIG = """
daemon: {{run_dir: {home}/run, state_dir: {home}/state, durability: none}}
pools:
  default: {{image: "{tag}", size: {{min: 1, max: 1}}}}
"""
#: A user without rights, where there is one to run as.
NOBODY = 65534


class Place:
    """`home` is the directory; commands run there with the environment's programs first in PATH."""

    def __init__(self, home):
        self.home = home
        self.config = home / "pool.yaml"
        self.config.write_text(CONFIG.format(home=home, tag=TAG))
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
        # pip finds the wheel beside the libraries that are there already, and asks no index.
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(home / "dist"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        path = f"{home}/env/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        places = {"POOL_RUN_DIR": str(home / "run"), "POOL_STATE_DIR": str(home / "state")}
        self.environment = {**own, **pip, **places, "PATH": path, "NO_COLOR": "1"}

    def shell(self, line, *, status=0):
        """What a line of a page prints. The tag of the image and the place of the configuration are the test's own."""
        line = line.replace("image build", f"image build --tag {TAG}").replace("/etc/pool/pool.yaml", str(self.config))
        return self.run("sh", "-c", line, status=status)

    def run(self, *command, status=0, **options):
        done = subprocess.run(
            [str(each) for each in command],
            capture_output=True, text=True, timeout=600, check=False, cwd=self.home, env=self.environment, **options,
        )  # fmt: skip
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    @contextmanager
    def daemon(self, line):
        """The daemon that a line of a page starts."""
        command = line.replace("/etc/pool/pool.yaml", str(self.config)).split()
        with (self.home / "log").open("ab") as log:
            running = subprocess.Popen(command, cwd=self.home, env=self.environment, stderr=log, stdout=log)
        try:
            self._await_ready(running)
            yield
        finally:
            running.terminate()
            running.wait(60)
        assert running.returncode == 0

    def _await_ready(self, running):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and running.poll() is None:
            asked = subprocess.run(["pool-admin", "status"], env=self.environment, capture_output=True, check=False)
            if asked.returncode == 0:
                return
            time.sleep(0.5)
        raise AssertionError(f"the daemon did not become ready: {(self.home / 'log').read_text()[-4000:]}")


@contextmanager
def place():
    """With the wheel built and the libraries that it names installed; the wheel itself is not."""
    home = Path(tempfile.mkdtemp(prefix="pool.", dir="/tmp"))
    home.chmod(0o755)
    here = Place(home)
    try:
        here.run("git", "-c", "safe.directory=*", "clone", "-q", ROOT, home / "source")
        here.run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", home / "dist", home / "source")
        shutil.rmtree(home / "source")
        here.run(sys.executable, "-m", "venv", home / "env")
        locked = ROOT / "locks" / "{}.{}".format(*sys.version_info) / "runtime.txt"
        index = {name: value for name, value in here.environment.items() if not name.startswith("PIP_NO")}
        here.environment, offline = index, here.environment
        here.run(home / "env/bin/pip", "install", "-q", "--require-hashes", "-r", locked)
        here.environment = offline
        yield here
    finally:
        shutil.rmtree(home, ignore_errors=True)
        _remove_image()


def _remove_image():
    engine = docker.APIClient(version="auto", timeout=120, **kwargs_from_env())
    if engine.images(TAG):
        engine.remove_image(TAG, force=True)
    engine.close()


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def promised(code):
    """The comment behind each print."""
    return re.findall(r"print\(.*\)  # (.*)$", code, re.MULTILINE)
