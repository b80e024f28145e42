"""What is installed from the wheel works without the checkout: image build, daemon, client."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
TAG = "pool-worker-wheel:test"
CONFIG = """
daemon: {{run_dir: {home}/run, state_dir: {home}/state, durability: none}}
pools:
  default: {{image: "{tag}", size: {{min: 1, max: 1}}}}
"""
LOOP = """
from pool import Client
import pool
with Client() as client:
    result = client.run("import numpy as np\\ndef main(n): return float(np.arange(n).sum())", entry="main", args=[5])
    print(pool.__file__, result.outcome, result.value)
"""


@pytest.fixture
def home():
    path = Path(tempfile.mkdtemp(prefix="pool.", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def run(*command, **options):
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, timeout=600, check=False, **options
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_wheel_works_in_an_empty_environment_without_the_checkout(home, sdk):
    source = home / "source"
    run("git", "-c", "safe.directory=*", "clone", "-q", ROOT, source)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", home / "dist", source)
    shutil.rmtree(source)
    run(sys.executable, "-m", "venv", home / "env")
    locked = ROOT / "locks" / "{}.{}".format(*sys.version_info) / "runtime.txt"
    run(home / "env/bin/pip", "install", "-q", "--require-hashes", "-r", locked)
    run(home / "env/bin/pip", "install", "-q", "--no-deps", *(home / "dist").glob("*.whl"))
    tools = home / "env/bin"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    environment |= {"POOL_RUN_DIR": str(home / "run"), "PATH": f"{tools}:/usr/bin:/bin:/usr/sbin:/sbin"}
    try:
        built = run(tools / "pool-admin", "image", "build", "--tag", TAG, cwd=home, env=environment)
        assert TAG in built
        (home / "pool.yaml").write_text(CONFIG.format(home=home, tag=TAG))
        daemon = subprocess.Popen(
            [tools / "pool-daemon", "--config", home / "pool.yaml"], cwd=home, env=environment, stderr=subprocess.PIPE
        )
        try:
            _await_ready(tools, home, environment, daemon)
            said = run(tools / "python", "-c", LOOP, cwd=home, env=environment)
            assert said.split()[1:] == ["ok", "10.0"]
            assert str(home / "env") in said
        finally:
            daemon.terminate()
            daemon.communicate(timeout=60)
        assert daemon.returncode == 0
    finally:
        if sdk.images(TAG):
            sdk.remove_image(TAG, force=True)


def _await_ready(tools, home, environment, daemon):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and daemon.poll() is None:
        asked = subprocess.run(
            [tools / "pool-admin", "status"], cwd=home, env=environment, capture_output=True, check=False
        )
        if asked.returncode == 0:
            return
        time.sleep(0.5)
    raise AssertionError(
        f"the daemon did not become ready: {daemon.stderr.read(4000) if daemon.poll() is not None else ''}"
    )
