"""The core and workers that an earlier daemon has left: who is adopted, who is not, and what counts until then."""

from __future__ import annotations

import pytest

from pool.core.events import Dispatch, StartWorker, WorkerAdopted, WorkerFound
from pool.core.machine import InvalidTransition
from pool.core.policy import ADOPTION_S, CLEANING_S
from pool.core.records import StopReason
from tests.support.core import Core, every, only, started, stopped


def core_with(*found, client=None, edition=1, **policy):
    """A pool whose workers of these names were found, before its first Tick."""
    core = Core(**{"min_workers": len(found), "max_workers": max(2, len(found))} | policy)
    for worker_id in found:
        commands = core.handle(
            WorkerFound(worker_id=worker_id, started_at=core.now - 10, edition=edition, client=client)
        )
        assert not every(commands, StartWorker)
    return core


def adopt(core, worker_id, jobs=0, **facts):
    return core.handle(WorkerAdopted(worker_id=worker_id, jobs=jobs, **facts))


def test_workers_that_were_found_count_before_they_have_proved_themselves():
    core = core_with("p-3", "p-4")
    assert not core.tick()
    adopt(core, "p-3")
    adopt(core, "p-4")
    assert core.states() == {"idle": 2}


def test_a_job_waits_for_the_proof_and_gets_the_worker():
    core = core_with("p-3")
    core.tick()
    assert not every(core.submit("early"), Dispatch)
    assert only(adopt(core, "p-3"), Dispatch).job_id == "early"


def test_a_worker_that_stays_silent_is_replaced_and_opens_no_breaker():
    core = core_with("p-3")
    core.tick()
    commands = core.tick(ADOPTION_S)
    assert stopped(commands) == {"p-3": "not_adopted"}
    assert started(commands) == ["p-4"]
    assert not core.pool.breaker.failures


@pytest.mark.parametrize("reason", [StopReason.OUTDATED, StopReason.UNKNOWN_JOB])
def test_a_worker_that_is_of_no_use_is_stopped_without_a_job(reason):
    core = core_with("p-3")
    core.tick()
    core.submit("early")
    commands = adopt(core, "p-3", unusable=reason)
    assert stopped(commands) == {"p-3": reason}
    assert not every(commands, Dispatch)


def test_names_go_on_after_those_that_were_found():
    core = core_with("p-7", min_workers=2)
    assert started(core.tick()) == ["p-8"]


def test_a_worker_goes_on_serving_its_client_only():
    core = core_with("p-3", client="ann")
    core.tick()
    adopt(core, "p-3", jobs=1)
    assert not every(core.submit("b", "bob"), Dispatch)
    assert only(core.submit("a", "ann"), Dispatch).worker_id == "p-3"


def test_a_worker_that_has_served_somebody_unknown_serves_nobody_where_each_has_its_own():
    core = core_with("p-3")
    core.tick()
    assert stopped(adopt(core, "p-3", jobs=1)) == {"p-3": "foreign"}


def test_a_worker_that_is_not_isolated_makes_the_pool_serve_one_client_with_each():
    core = core_with("p-3", reuse_scope="any")
    core.tick()
    adopt(core, "p-3", shareable=False)
    assert core.pool.policy.reuse_scope == "client"


def test_the_jobs_before_the_restart_count():
    core = core_with("p-3", max_jobs=3, client="ann")
    core.tick()
    assert stopped(adopt(core, "p-3", jobs=3)) == {"p-3": "max_jobs"}


def test_the_age_before_the_restart_counts():
    core = core_with("p-3", max_age_s=12, max_workers=1)
    core.tick()
    adopt(core, "p-3")
    assert stopped(core.pass_time(2)) == {"p-3": "max_age"}


def test_a_worker_that_cleans_up_is_idle_after_that():
    core = core_with("p-3", client="ann")
    core.tick()
    adopt(core, "p-3", jobs=1, cleaning=True)
    assert core.states() == {"cleaning": 1}
    core.free("p-3")
    assert core.states() == {"idle": 1}


def test_a_worker_that_does_not_finish_cleaning_is_replaced():
    core = core_with("p-3", client="ann")
    core.tick()
    adopt(core, "p-3", jobs=1, cleaning=True)
    assert stopped(core.tick(CLEANING_S)) == {"p-3": "dirty"}


def test_more_workers_than_the_pool_may_have_now_are_stopped():
    core = core_with("p-1", "p-2", "p-3", min_workers=2, max_workers=2)
    assert core.states() == {"found": 2, "stopping": 1}


def test_workers_with_data_that_nobody_has_offered_serve_and_are_replaced_by_new_ones():
    core = core_with("p-3", edition=0, max_workers=2)
    core.tick()
    adopt(core, "p-3")
    assert only(core.submit("a"), Dispatch).worker_id == "p-3"


def test_a_worker_that_is_known_is_not_found_again():
    core = core_with("p-3")
    with pytest.raises(InvalidTransition, match="it is known"):
        core.handle(WorkerFound(worker_id="p-3", started_at=core.now, edition=1, client=None))


def test_a_shutdown_stops_workers_that_have_not_proved_themselves():
    from pool.core.events import ShutdownRequested

    core = core_with("p-3")
    core.tick()
    assert stopped(core.handle(ShutdownRequested(deadline=core.now + 5))) == {"p-3": "shutdown"}
