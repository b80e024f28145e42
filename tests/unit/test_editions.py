"""A pool whose data sets change: one worker tries the new content, and then the others are replaced."""

import pytest

from pool.core.events import Dispatch, EditionOffered, ResumeRequested, StartWorker, WorkerFailed
from tests.support.core import Core, every, only, started, stopped


def offer(core, edition=2):
    return core.handle(EditionOffered(edition=edition))


def editions(core):
    return {worker.id: worker.edition for worker in core.pool.workers.values()}


def roll(core):
    """The engine carries out every start and stop, until nothing is left to do."""
    for _ in range(50):
        core.recover()
        core.tick(0.1)


def test_a_pool_without_an_edition_accepts_jobs_and_starts_no_worker_until_one_is_offered():
    core = Core(min_workers=2, max_workers=2, edition=0)
    assert started(core.tick()) == []
    assert started(core.submit("j")) == []
    assert [each.edition for each in every(offer(core, 1), StartWorker)] == [1, 1]
    assert only(core.ready("p-1"), Dispatch).job_id == "j"


def test_one_worker_tries_the_new_data_while_all_the_others_stay():
    core = Core(min_workers=2, max_workers=4).up()
    commands = offer(core)
    assert [(each.worker_id, each.edition) for each in every(commands, StartWorker)] == [("p-3", 2)]
    assert core.pass_time(1000) == []
    assert core.states() == {"idle": 2, "starting": 1}


def test_when_it_is_ready_the_others_are_replaced_one_after_another():
    core = Core(min_workers=2, max_workers=4).up()
    offer(core)
    assert stopped(core.ready("p-3")) == {"p-1": "dataset"}
    roll(core)
    assert set(editions(core).values()) == {2}
    assert core.states() == {"idle": 2}
    assert core.pool.editions.current == 2


def test_a_full_pool_gives_up_one_idle_worker_for_the_trial_and_not_two():
    core = Core(min_workers=2, max_workers=2).up()
    commands = offer(core)
    assert stopped(commands) == {"p-1": "dataset"}
    assert [(each.worker_id, each.edition) for each in every(commands, StartWorker)] == [("p-3", 2)]
    assert core.pass_time(1000) == []
    roll(core)
    assert set(editions(core).values()) == {2}


def test_a_pool_of_one_busy_worker_waits_for_its_job():
    core = Core(min_workers=1, max_workers=1).up()
    core.submit("j", wall_s=100)
    assert offer(core) == []
    assert core.states() == {"draining": 1}
    assert stopped(core.end("j")) == {"p-1": "dataset"}
    roll(core)
    assert set(editions(core).values()) == {2}
    assert core.finishes()["j"].outcome == "ok"


def test_a_job_that_runs_ends_on_the_data_it_began_with():
    core = Core(min_workers=2, max_workers=4).up()
    core.submit("j", wall_s=1000)
    worker = core.worker_of("j")
    offer(core)
    roll(core)
    assert editions(core)[worker] == 1
    core.end("j")
    roll(core)
    assert set(editions(core).values()) == {2}


def test_a_client_that_has_had_a_job_on_new_data_gets_no_older_data():
    core = Core(min_workers=2, max_workers=3, reuse_scope="any").up()
    core.submit("long", "bob", wall_s=1000)
    offer(core)
    core.ready("p-3")
    core.submit("a", "ann")
    assert core.worker_of("a") == "p-3"
    core.submit("b", "ann")  # the new worker is busy, an old one is idle
    assert core.pool.jobs["b"].worker_id is None
    core.end("a")
    assert core.worker_of("b") == "p-3"


def test_data_that_cannot_be_loaded_change_nothing_and_do_not_open_the_breaker():
    core = Core(min_workers=2, max_workers=4).up()
    offer(core)
    core.handle(WorkerFailed(worker_id="p-3", reason="half a file", permanent=True))
    roll(core)
    assert editions(core) == {"p-1": 1, "p-2": 1}
    view = core.pool.editions
    assert (view.current, view.trial, view.reason, view.retry_at) == (1, 2, "half a file", None)
    assert not core.pool.breaker.open
    assert any("half a file" in entry.text for entry in core.pool.history("p"))


def test_a_trial_that_failed_for_another_reason_than_the_data_is_repeated():
    core = Core(min_workers=1, max_workers=4).up()
    offer(core)
    core.handle(WorkerFailed(worker_id="p-2", reason="no time"))
    core.remove_stopped()
    commands = core.pass_time(1.5)
    assert [each.edition for each in every(commands, StartWorker)] == [2]
    core.handle(WorkerFailed(worker_id="p-3", reason="no time"))
    core.remove_stopped()
    assert started(core.pass_time(1.5)) == []
    assert started(core.pass_time(1)) == ["p-4"]


def test_a_refused_edition_is_tried_again_on_resume_and_gives_way_to_the_next_offer():
    core = Core(min_workers=1, max_workers=4).up()
    offer(core)
    core.handle(WorkerFailed(worker_id="p-2", reason="half a file", permanent=True))
    assert [each.edition for each in every(core.handle(ResumeRequested()), StartWorker)] == [2]
    core.handle(WorkerFailed(worker_id="p-3", reason="half a file", permanent=True))
    assert [each.edition for each in every(offer(core, 3), StartWorker)] == [3]
    roll(core)
    assert set(editions(core).values()) == {3}


def test_while_an_edition_is_refused_worn_workers_are_replaced_on_the_older_data():
    core = Core(min_workers=1, max_workers=4, max_jobs=1).up()
    offer(core)
    core.handle(WorkerFailed(worker_id="p-2", reason="half a file", permanent=True))
    core.run("j")
    roll(core)
    core.run("k")
    assert set(editions(core).values()) <= {1}
    assert len(core.finishes()) == 2


def test_an_offer_replaces_a_first_edition_that_cannot_be_loaded_and_closes_the_breaker():
    core = Core(min_workers=1, max_workers=1)
    core.tick()
    core.handle(WorkerFailed(worker_id="p-1", reason="half a file", permanent=True))
    core.remove_stopped()
    assert core.pool.breaker.open
    assert [each.edition for each in every(offer(core), StartWorker)] == [2]
    assert not core.pool.breaker.open


def test_two_changes_in_a_row_end_with_the_latest():
    core = Core(min_workers=2, max_workers=4).up()
    offer(core, 2)
    offer(core, 3)
    assert core.handle(EditionOffered(edition=3)) == []
    roll(core)
    assert set(editions(core).values()) == {3}


@pytest.mark.parametrize("state", ["before", "after"])
def test_a_trial_whose_worker_is_stopped_is_repeated(state):
    core = Core(min_workers=1, max_workers=4).up()
    offer(core)
    if state == "after":
        core.ready("p-2")
    core.handle(WorkerFailed(worker_id="p-2", reason="gone"))
    core.pass_time(2)
    roll(core)
    assert set(editions(core).values()) == {2}
