"""What a pool does when its data sets change: a worker tries the new content, the others follow, no job is in between."""

from __future__ import annotations

import pytest

from pool.core.events import Dispatch, EditionOffered, ResumeRequested, StartWorker, WorkerFailed, WorkerReady
from pool.core.machine import PoolState
from pool.core.policy import PoolPolicy
from pool.model import WorkerState
from tests.rehearsal import Rehearsal, every, only, started, stopped


def offer(play, edition=2):
    return play.play(EditionOffered(edition=edition))


def editions(play):
    return {worker.id: worker.edition for worker in play.pool.workers.values()}


def roll(play):
    """Let the engine do what it is asked, until there is nothing left to do."""
    for _ in range(50):
        for worker_id in play.ids(WorkerState.STARTING):
            play.ready(worker_id)
        play.clear_away()
        play.tick(0.1)


def test_a_pool_without_an_edition_takes_jobs_and_starts_no_worker_until_there_is_one():
    play = Rehearsal(min_workers=2, max_workers=2)
    play.pool = PoolState("p", PoolPolicy(min_workers=2, max_workers=2), edition=0)
    assert started(play.tick()) == []
    assert started(play.submit("j")) == []
    assert [each.edition for each in every(offer(play, 1), StartWorker)] == [1, 1]
    assert only(play.ready("p-1"), Dispatch).job_id == "j"


def test_one_worker_tries_the_new_data_and_all_the_others_stay_meanwhile():
    play = Rehearsal(min_workers=2, max_workers=4).up()
    commands = offer(play)
    assert [(each.worker_id, each.edition) for each in every(commands, StartWorker)] == [("p-3", 2)]
    assert play.pass_time(1000) == []
    assert play.states() == {"idle": 2, "starting": 1}


def test_when_it_is_ready_the_others_are_replaced_one_after_another():
    play = Rehearsal(min_workers=2, max_workers=4).up()
    offer(play)
    assert stopped(play.ready("p-3")) == {"p-1": "dataset"}
    roll(play)
    assert set(editions(play).values()) == {2}
    assert play.states() == {"idle": 2}
    assert play.pool.editions.current == 2


def test_a_full_pool_gives_one_idle_worker_up_for_the_trial_and_never_two():
    play = Rehearsal(min_workers=2, max_workers=2).up()
    commands = offer(play)
    assert stopped(commands) == {"p-1": "dataset"}
    assert [(each.worker_id, each.edition) for each in every(commands, StartWorker)] == [("p-3", 2)]
    assert play.pass_time(1000) == []
    roll(play)
    assert set(editions(play).values()) == {2}


def test_a_pool_of_one_busy_worker_waits_for_its_job():
    play = Rehearsal(min_workers=1, max_workers=1).up()
    play.submit("j", wall_s=100)
    assert offer(play) == []
    assert play.states() == {"draining": 1}
    assert stopped(play.end("j")) == {"p-1": "dataset"}
    roll(play)
    assert set(editions(play).values()) == {2}
    assert play.finishes()["j"].outcome == "ok"


def test_a_job_that_runs_ends_on_the_data_it_began_with():
    play = Rehearsal(min_workers=2, max_workers=4).up()
    play.submit("j", wall_s=1000)
    worker = play.pool.jobs["j"].worker_id
    offer(play)
    roll(play)
    assert editions(play)[worker] == 1
    play.end("j")
    roll(play)
    assert set(editions(play).values()) == {2}


def test_a_client_that_has_seen_new_data_gets_no_older_ones():
    play = Rehearsal(min_workers=2, max_workers=3, reuse_scope="any").up()
    play.submit("long", "bob", wall_s=1000)
    offer(play)
    play.ready("p-3")
    play.submit("a", "ann")
    assert editions(play)[play.pool.jobs["a"].worker_id] == 2
    play.submit("b", "ann")  # the new worker is busy
    assert play.pool.jobs["b"].worker_id is None or editions(play)[play.pool.jobs["b"].worker_id] == 2
    play.end("a")
    roll(play)
    assert editions(play)[play.pool.jobs["b"].worker_id] == 2


def test_data_that_cannot_be_loaded_change_nothing_and_open_no_breaker():
    play = Rehearsal(min_workers=2, max_workers=4).up()
    offer(play)
    play.play(WorkerFailed(worker_id="p-3", reason="half a file", permanent=True))
    roll(play)
    assert editions(play) == {"p-1": 1, "p-2": 1}
    view = play.pool.editions
    assert (view.current, view.trial, view.reason, view.retry_at) == (1, 2, "half a file", None)
    assert not play.pool.breaker.open
    assert any("half a file" in entry.text for entry in play.pool.story("p"))


def test_what_may_have_failed_for_another_reason_is_tried_again_and_again():
    play = Rehearsal(min_workers=1, max_workers=4).up()
    offer(play)
    play.play(WorkerFailed(worker_id="p-2", reason="no time"))
    play.clear_away()
    commands = play.pass_time(1.5)
    assert [each.edition for each in every(commands, StartWorker)] == [2]
    play.play(WorkerFailed(worker_id="p-3", reason="no time"))
    play.clear_away()
    assert started(play.pass_time(1.5)) == []
    assert started(play.pass_time(1)) == ["p-4"]


def test_a_refused_edition_is_tried_again_when_the_operator_says_so_or_another_is_offered():
    play = Rehearsal(min_workers=1, max_workers=4).up()
    offer(play)
    play.play(WorkerFailed(worker_id="p-2", reason="half a file", permanent=True))
    assert [each.edition for each in every(play.play(ResumeRequested()), StartWorker)] == [2]
    play.play(WorkerFailed(worker_id="p-3", reason="half a file", permanent=True))
    assert [each.edition for each in every(offer(play, 3), StartWorker)] == [3]
    roll(play)
    assert set(editions(play).values()) == {3}


def test_while_an_edition_is_refused_worn_workers_are_replaced_with_the_data_there_were():
    play = Rehearsal(min_workers=1, max_workers=4, max_jobs=1).up()
    offer(play)
    play.play(WorkerFailed(worker_id="p-2", reason="half a file", permanent=True))
    play.run("j")
    roll(play)
    play.run("k")
    assert set(editions(play).values()) <= {1}
    assert len(play.finishes()) == 2


def test_a_first_edition_that_cannot_be_loaded_gives_way_at_once_and_closes_the_breaker():
    play = Rehearsal(min_workers=1, max_workers=1)
    play.tick()
    play.play(WorkerFailed(worker_id="p-1", reason="half a file", permanent=True))
    play.clear_away()
    assert play.pool.breaker.open
    assert [each.edition for each in every(offer(play), StartWorker)] == [2]
    assert not play.pool.breaker.open


def test_two_changes_in_a_row_end_with_the_latest():
    play = Rehearsal(min_workers=2, max_workers=4).up()
    offer(play, 2)
    offer(play, 3)
    assert play.play(EditionOffered(edition=3)) == []
    roll(play)
    assert set(editions(play).values()) == {3}


@pytest.mark.parametrize("state", ["before", "after"])
def test_a_trial_that_is_stopped_is_begun_anew(state):
    play = Rehearsal(min_workers=1, max_workers=4).up()
    offer(play)
    if state == "after":
        play.play(WorkerReady(worker_id="p-2"))
    play.play(WorkerFailed(worker_id="p-2", reason="gone"))
    play.pass_time(2)
    roll(play)
    assert set(editions(play).values()) == {2}
