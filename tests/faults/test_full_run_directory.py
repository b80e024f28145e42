"""A full run directory: no worker can be started, which the daemon says, and it goes on when there is room."""

import pytest

from tests.support.daemons import DaemonProcess, pool_of
from tests.support.small_disk import FEW_FILES, mounted, touched

POOL = pool_of(1, 2, limits={"wall_s": 60})
WAITS = "import os, time\ndef main(path):\n    while not os.path.exists(path): time.sleep(0.05)\n    return 'went'"


@pytest.fixture
def home(tmp_path_factory):
    """Of a daemon whose run directory has room for few files."""
    home = tmp_path_factory.mktemp("pool")
    run = home / "run"
    run.mkdir()
    with mounted(run, FEW_FILES):
        yield home


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_a_worker_that_cannot_be_given_its_files_is_a_failed_start_and_no_end_of_the_daemon(home, left, tmp_path):
    fillers = [home / "run" / "w" / f"filler{number}" for number in range(40)]
    with DaemonProcess({"default": POOL}, home=home) as daemon:
        daemon.until(lambda: daemon.workers(state="idle"))
        made = [filler for filler in fillers if touched(filler)]
        for filler in made[:left]:
            filler.unlink()
        with daemon.client(timeout=60) as client:
            waiting = [client.submit(WAITS, entry="main", args=[str(tmp_path / "go")]) for _ in range(2)]
            daemon.until(lambda: "cannot be made" in daemon.words())
            for filler in made[left:]:
                filler.unlink()
            daemon.until(lambda: daemon.pool()["running"] == 2)
            (tmp_path / "go").touch()
            assert [client.result(each).value for each in waiting] == ["went", "went"]
