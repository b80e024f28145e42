"""Containers that run and do not become workers: each is removed at its deadline and another is started."""

import re

import pytest

from pool.engines.lockdown import OWNER_LABEL, WORKER_LABEL
from pool.images import DEFAULT_TAG
from tests.docker.conftest import with_entrypoint
from tests.support.daemons import DaemonProcess, pool_of

PYTHON = ("/usr/bin/python3", "-u", "-c")
#: What the container runs instead of the runner, and what the history has to say about it.
PROGRAMS = {
    # A process that is alive and does not connect.
    "silent": ("import signal; signal.pause()", "its runner has not connected"),
    # The runner itself, whose zygote does not return from the import of a module that is to be preloaded.
    "stuck": (
        """
import sys, signal
class Wedge:
    def find_spec(name, *_):
        if name == "wedge":
            print("the import of wedge has begun", file=sys.stderr)
            signal.pause()
sys.meta_path.insert(0, Wedge)
sys.path.insert(0, "/opt/pool")
from runner.main import main
main(sys.argv[1:])
""",
        "its runner connected and did not become ready",
    ),
}
#: A busy machine takes some seconds until the runner connects.
TIMEOUT_S = 30
POOL = pool_of(1, preload=["wedge"], limits={"wall_s": 30, "cpu_s": 30}, boot_timeout_s=TIMEOUT_S)


@pytest.fixture(scope="module")
def images(sdk):
    """The worker image with each of the programs as its entry point: tags by name."""
    tags = {name: f"pool-worker-{name}:latest" for name in PROGRAMS}
    for name, tag in tags.items():
        with_entrypoint(sdk, DEFAULT_TAG, tag, (*PYTHON, PROGRAMS[name][0]))
    yield tags
    for tag in tags.values():
        sdk.remove_image(tag, force=True)


@pytest.fixture(scope="module")
def daemon(images):
    pools = {name: POOL | {"image": tag} for name, tag in images.items()}
    with DaemonProcess(pools, engine="docker", wait_ready=False) as running:
        yield running


def given_up(daemon, pool, progress):
    """The workers of the pool that were not ready in time and had come so far."""
    found = []
    for entry in daemon.call("history", id=pool)["entries"]:
        found += re.findall(rf"the last of (\S+): \S+ was not ready within {TIMEOUT_S} s: {progress}", entry["what"])
    return found


def containers(daemon, sdk):
    """The workers of which there is a container, running or not."""
    owner = (daemon.state_dir / "owner").read_text().strip()
    found = sdk.containers(all=True, filters={"label": f"{OWNER_LABEL}={owner}"})
    return {each["Labels"][WORKER_LABEL] for each in found}


@pytest.mark.parametrize("pool", PROGRAMS)
def test_a_container_that_does_not_become_a_worker_is_removed_at_its_deadline_and_another_one_is_tried(
    daemon, sdk, pool
):
    progress = PROGRAMS[pool][1]
    daemon.until(lambda: daemon.pool(pool)["failed_starts"] and given_up(daemon, pool, progress))
    gone = given_up(daemon, pool, progress)[0]
    daemon.until(lambda: daemon.workers(pool) and gone not in {each["id"] for each in daemon.workers(pool)})
    assert gone not in containers(daemon, sdk)
    history = "\n".join(entry["what"] for entry in daemon.call("history", id=gone)["entries"])
    assert f"not ready within {TIMEOUT_S} s: {progress}" in history
    assert "boot_timeout" in history
    figures = daemon.pool(pool)
    assert figures["failed_starts"] >= figures["recycles"]["boot_timeout"] >= 1


def test_the_last_words_of_a_start_that_was_given_up_are_in_the_log(daemon):
    daemon.until(lambda: "the import of wedge has begun" in daemon.log.read_text())
