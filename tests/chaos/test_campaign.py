"""A hundred faults and more on the real Engine: nothing accepted is lost, nothing runs twice, nothing is left."""

import os
import subprocess
import sys

import pytest

from tests.chaos.campaign import Campaign, judged
from tests.chaos.faults import FAULTS, engine_frozen, engine_restarted
from tests.chaos.programs import nonce_of
from tests.chaos.witness import Witness
from tests.support.daemons import worker_image

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="faults signal processes of other users; needs root"),
]
#: On a busy machine it takes longer, until there are so many.
SECONDS, FAULTS_AT_LEAST, ENDS_AT_LEAST = 200, 125, 500
#: Between two faults, and between two jobs of a thread, so that the tests beside it have processors, too.
FAULT_PAUSE_S, JOB_PAUSE_S = 0.5, 0.5


def test_the_witness_counts_each_execution_once():
    nonce, other = nonce_of("this.job"), nonce_of("another.job")
    program = "import ctypes, sys; ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)"
    with Witness("this") as witness:
        for name in (nonce, other, nonce, nonce):
            subprocess.run([sys.executable, "-c", program, name], check=True)
    assert witness.seen == {nonce: 3}, "those of another campaign are not counted"
    assert witness.complete


def test_under_faults_at_random_no_job_is_lost_or_runs_twice_and_nothing_is_left(tmp_path_factory):
    worker_image()
    directory = tmp_path_factory.mktemp("chaos")
    faults = {
        fault: weight for fault, weight in FAULTS.items() if fault not in {engine_frozen, engine_restarted}
    }  # others may use the Engine
    with Campaign(directory, seed=1, job_pause_s=JOB_PAUSE_S) as campaign:
        verdict = campaign.run(
            SECONDS, faults, least_faults=FAULTS_AT_LEAST, least_jobs=ENDS_AT_LEAST, pause_s=FAULT_PAUSE_S
        )
    print(judged(verdict, campaign.recoveries))
    assert not verdict.violations, f"{judged(verdict, campaign.recoveries)}\nrecords: {directory}"
    assert verdict.acknowledged > 250
    assert verdict.outcomes["ok"] > 100
    assert sum(verdict.faults.values()) >= FAULTS_AT_LEAST
