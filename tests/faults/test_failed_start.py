"""A daemon that cannot start says why, and leaves the workers and jobs of the last one to the next."""

import itertools
import re
import signal

import pytest

from pool import Outcome
from tests.support.daemons import DaemonProcess, pool_of
from tests.support.small_disk import FEW_FILES, mounted, touched

POOL = pool_of(1, limits={"wall_s": 600})
WAITS = "import os, time\ndef main(path):\n    while not os.path.exists(path): time.sleep(0.05)\n    return 'went'"


@pytest.fixture
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("pool")


@pytest.fixture
def small(home):
    """Its run directory has room for few files."""
    run = home / "run"
    run.mkdir()
    with mounted(run, FEW_FILES):
        yield home


def test_a_start_that_fails_leaves_running_jobs_to_the_next_daemon(home, tmp_path):
    job_id = left_running(home, tmp_path)
    refused = DaemonProcess({"default": POOL}, home=home, durability="crash", wait_ready=False, submit_group="no-such")
    refused.start().process.wait(120)
    assert "there is no group 'no-such'" in refused.words()
    with DaemonProcess({"default": POOL}, home=home, durability="crash") as third, third.client(timeout=60) as client:
        (tmp_path / "go").touch()
        assert client.result(job_id).value == "went"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_of_the_start_ends_it_without_a_traceback_and_the_next_daemon_serves(
    home, monkeypatch, number
):
    """The daemon gets it at its first call, at the tenth, and so on, until it has served before."""
    served = False
    for at in itertools.chain(range(0, 60, 10), range(60, 2000, 60)):
        monkeypatch.setenv("POOL_SIGNAL", f"{int(number)}:{at}")
        daemon = DaemonProcess(
            {"default": POOL}, engine="interrupted", home=home, durability="crash", wait_ready=False
        ).start()
        assert daemon.process.wait(120) == 0, daemon.words()
        assert "Traceback" not in daemon.words()
        if served := "the daemon is stopping" in daemon.words():
            break
    assert served
    with DaemonProcess({"default": POOL}, home=home, durability="crash") as last, last.client(timeout=60) as client:
        assert client.run("result = 1").value == 1


@pytest.mark.parametrize("left", [0, 1, 2, 4])
def test_a_daemon_that_starts_with_a_full_run_directory_says_so_or_does_without_what_it_cannot_reach(
    small, left, tmp_path
):
    job_id = left_running(small, tmp_path)
    fillers = [each for number in range(40) if touched(each := small / "run" / f"w/{number}.filler")]
    for each in fillers[:left]:
        each.unlink()
    full = DaemonProcess({"default": POOL}, home=small, durability="crash", wait_ready=False)
    begun = starts(full)
    for each in fillers[left:]:
        each.unlink(missing_ok=True)
    if not begun:
        assert re.search(r"^pool\.errors\.ConfigError: .*no space left", full.words(), re.IGNORECASE | re.MULTILINE)
        full.start()
    (tmp_path / "go").touch()
    with full.client(timeout=60) as client:
        full.until(full.status)
        outcome = client.result(job_id).outcome
        assert outcome is Outcome.OK or (begun and outcome is Outcome.LOST)
        assert client.run("result = 1").value == 1
    full.stop()


def starts(daemon):
    """Whether it answers; False if it has ended."""
    daemon.start()
    try:
        daemon.until(daemon.status)
    except AssertionError:
        if daemon.process.poll() is None:
            raise
        return False
    return True


def left_running(home, tmp_path):
    """The job that runs in a worker of a daemon that was killed."""
    with DaemonProcess({"default": POOL}, home=home, durability="crash") as first:
        with first.client(timeout=60) as client:
            job_id = client.submit(WAITS, entry="main", args=[str(tmp_path / "go")])
            first.worker_of(job_id)
        first.kill()
    return job_id
