"""Code that takes over its worker repeatedly: after three workers it is refused, and other code is not.

The worker here is a script that turns rogue when the job comes (tests/support/rogue_peer.py): what is left of a runner
whose job has got through all layers.
"""

import pytest

from pool.errors import PoisonedCodeError
from pool.model import Outcome
from tests.hostile.siege import SMALL, Besieged
from tests.support.daemons import module_daemon

ROGUE = SMALL | {"size": {"min": 1, "max": 1}, "heartbeat_s": 2}
HOSTILE = "def main(x):\n    return 'everything that this runner can say, it says'"


daemon = module_daemon({"default": SMALL, "rogue": ROGUE}, engine="rogue", kind=Besieged)


def cost(daemon, script):
    """Run the hostile code, which costs a worker; the outcome of the job."""
    worker = daemon.leasable(script)
    result = daemon.result(daemon.submit(HOSTILE, 1, pool="rogue"))
    daemon.replaced(worker)
    return result.outcome


def test_code_that_takes_over_worker_after_worker_is_refused_and_others_are_served(daemon):
    with daemon.unharmed():
        outcomes = [cost(daemon, script) for script in ("job_half_a_message", "job_dirty_words", "job_two_results")]
        assert outcomes == [Outcome.LOST, Outcome.OK, Outcome.OK]
        with pytest.raises(PoisonedCodeError, match="has cost 3 workers") as caught:
            daemon.submit(HOSTILE, 2, pool="rogue")
        workers = {each["id"] for each in daemon.workers("rogue")}
        for _ in range(20):
            with pytest.raises(PoisonedCodeError):
                daemon.submit(HOSTILE, 2, pool="rogue")
        assert {each["id"] for each in daemon.workers("rogue")} == workers
        daemon.honest("rogue")
        assert daemon.run(HOSTILE, 3).ok, "what it did in one pool says nothing about another"
    history = str(caught.value.fields["history"])
    assert "was not clean after the job" in history
    assert "it sent Done while it cleaned up" in history
    assert history.isprintable()
    assert "\x1b" not in str(daemon.pool("rogue")["poison"])
