"""A daemon that does not run for a while judges nobody by what it has not read yet."""

import time
from concurrent.futures import ThreadPoolExecutor

from pool.core.events import Finish, Tick
from pool.core.policy import PoolPolicy
from pool.model import Limits
from tests.support.core import Core, every
from tests.support.daemons import DaemonProcess, pool_of
from tests.support.waiting import eventually

POOL = pool_of(1)
#: The job needs half a second of it on an idle machine.
WALL_S = 10
#: Prints in more pieces than the daemon reads in one turn, and ends in time.
PRINTS = """
import pathlib, time
pathlib.Path({stall!r}).touch()
for number in range(40):
    print(number, flush=True)
    time.sleep(0.012)
pathlib.Path({ended!r}).touch()
result = "in time"
"""


def test_a_tick_judges_only_what_was_due_when_the_last_messages_were_read():
    core = Core(min_workers=1, max_workers=1).up()
    core.submit("runs", wall_s=10.0)
    core.submit("waits", queue_timeout_s=10.0)
    due = core.pool.next_deadline()
    core.now += 1000
    core.handle(Tick(until=due - 0.1))
    assert core.pool.next_deadline() == due
    core.handle(Tick(until=due))
    assert [each.job_id for each in every(core.log, Finish)] == ["waits"]


def test_a_job_that_has_ended_in_time_is_ok_though_its_answer_is_read_after_its_deadline(home):
    code = PRINTS.format(stall=str(home / "stall"), ended=str(home / "ended"))
    with (
        DaemonProcess({"default": POOL}, engine="stalling", home=home) as daemon,
        daemon.client(timeout=60) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        printed = []
        running = threads.submit(client.run, code, limits=Limits(wall_s=WALL_S), on_stdout=printed.append)
        try:
            eventually((home / "ended").exists)
            time.sleep(WALL_S + PoolPolicy().kill_grace_s + 0.5)  # its deadline passes
        finally:
            (home / "go_on").touch()
        result = running.result(60)
        assert (result.outcome, result.value) == ("ok", "in time"), result.reason
        assert result.stdout == "".join(printed)
        assert [each["id"] for each in daemon.workers()] == ["default-1"]
