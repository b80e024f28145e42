"""A short campaign of faults on the real Engine: nothing accepted is lost, nothing runs twice, nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pool.images import DEFAULT_TAG, build
from tests.chaos.campaign import Campaign, judged
from tests.chaos.faults import FAULTS, engine_frozen, engine_restarted
from tests.chaos.programs import nonce_of
from tests.chaos.witness import Witness

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="faults signal processes of other users; needs root"),
]
SECONDS, FAULTS_AT_LEAST = 60, 25


def test_the_witness_counts_each_execution_once():
    nonce, other = nonce_of("this.job"), nonce_of("another.job")
    program = "import ctypes, sys; ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)"
    with Witness("this") as witness:
        for name in (nonce, other, nonce, nonce):
            subprocess.run([sys.executable, "-c", program, name], check=True)
    assert witness.seen == {nonce: 3}, "those of another campaign are not counted"
    assert witness.complete


def test_under_faults_at_random_no_job_is_lost_or_runs_twice_and_nothing_is_left(tmp_path_factory):
    build(DEFAULT_TAG, progress=print)
    directory = tmp_path_factory.mktemp("chaos")
    faults = {
        fault: weight for fault, weight in FAULTS.items() if fault not in {engine_frozen, engine_restarted}
    }  # others may use the Engine
    with Campaign(directory, seed=1) as campaign:
        verdict = campaign.run(SECONDS, faults, least_faults=FAULTS_AT_LEAST)
    print(judged(verdict, campaign.recoveries))
    assert not verdict.violations, f"{judged(verdict, campaign.recoveries)}\nrecords: {directory}"
    assert verdict.acknowledged > 50
    assert verdict.outcomes["ok"] > 20
    assert sum(verdict.faults.values()) > 20
