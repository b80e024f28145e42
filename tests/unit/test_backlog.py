"""The queue of a pool: fairness, bounds, and the removal of jobs."""

import heapq
from collections import Counter
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.core.backlog import MOST_UNCOUNTED, Backlog
from pool.core.events import JobEnded, JobSubmitted, WorkerFreed
from pool.core.turns import FIRST_COST_S, SMALL_HEAP, StrikeHeap, Turns
from pool.model import Outcome
from tests.support.core import Core


def backlog(*, max_jobs: int = 1000, max_per_client: int = 1000) -> Backlog:
    return Backlog(max_jobs=max_jobs, max_per_client=max_per_client)


def serve(queue: Backlog, client: str, took_s: float = FIRST_COST_S) -> str:
    """The next job of the client gets a worker, and gives it back."""
    places = dict(queue.waiting)
    job_id = queue.pop(client)
    _, loop = places[job_id]
    queue.turns.end(client, loop, charged_s=queue.turns.begin(client, loop), took_s=took_s)
    return job_id


def in_turn(queue: Backlog) -> list[str]:
    """Pop until it is empty, each time for the client whose turn it is."""
    order = []
    while queue.waiting:
        client = next(queue.clients())
        order.append(serve(queue, client))
        queue.validate()
    return order


def test_clients_take_turns_however_many_jobs_one_of_them_submits():
    queue = backlog()
    for number in range(4):
        queue.push(f"a{number}", "ann")
    queue.push("b0", "bob")
    queue.push("c0", "cid")
    queue.push("b1", "bob")
    assert in_turn(queue) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


def test_a_higher_priority_goes_first_within_a_client_and_first_come_within_a_priority():
    queue = backlog()
    for name, priority in [("low", 0), ("first", 5), ("second", 5), ("lowest", -5), ("high", 9)]:
        queue.push(name, "ann", priority=priority)
    assert in_turn(queue) == ["high", "first", "second", "low", "lowest"]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-2, 2)), max_size=30), st.integers(0, 5))
def test_the_place_of_a_job_is_when_its_turn_comes(jobs, served):
    queue = backlog()
    for number, (client, priority) in enumerate(jobs):
        queue.push(f"{client}{number}", client, priority=priority)
    for _ in range(min(served, len(queue.waiting))):
        serve(queue, next(queue.clients()))
    places = {job: place for client in "abcd" for job, place in queue.places(client).items()}
    assert sorted(places, key=places.__getitem__) == in_turn(queue)
    assert sorted(places.values()) == list(range(1, len(places) + 1))


def test_a_high_priority_does_not_take_another_clients_turn():
    queue = backlog()
    queue.push("a0", "ann")
    queue.push("b0", "bob", priority=100)
    queue.push("b1", "bob", priority=100)
    assert in_turn(queue) == ["a0", "b0", "b1"]


def test_a_client_that_is_served_out_of_turn_goes_to_the_end_and_the_first_keeps_its_turn():
    queue = backlog()
    for name in ("a0", "b0", "b1", "c0"):
        queue.push(name, name[0])
    assert serve(queue, "b") == "b0"
    assert in_turn(queue) == ["a0", "c0", "b1"]


def test_it_is_full_at_the_cap_of_all_jobs_and_at_the_cap_of_one_client():
    queue = backlog(max_jobs=3, max_per_client=2)
    assert queue.why_full("ann") is None
    queue.push("a0", "ann")
    queue.push("a1", "ann")
    assert "2 of your jobs wait" in queue.why_full("ann")
    assert queue.why_full("bob") is None
    queue.push("b0", "bob")
    assert "3 jobs wait" in queue.why_full("cid")


def test_a_removed_job_is_never_served_and_frees_its_place():
    queue = backlog(max_jobs=2)
    queue.push("a0", "ann")
    queue.push("a1", "ann")
    queue.remove("a0")
    assert "a0" not in queue.waiting
    assert queue.why_full("ann") is None
    assert in_turn(queue) == ["a1"]


def test_a_client_whose_last_job_was_removed_has_no_turn():
    queue = backlog()
    queue.push("a0", "ann")
    queue.remove("a0")
    assert not queue.waits("ann")
    with pytest.raises(KeyError):
        queue.pop("ann")
    with pytest.raises(KeyError):
        queue.remove("a0")


def test_the_next_queue_deadline_and_the_overdue_jobs_are_known():
    queue = backlog()
    queue.push("patient", "ann")
    queue.push("late", "ann", deadline=30)
    queue.push("soon", "bob", deadline=10)
    queue.push("sooner", "bob", deadline=5)
    queue.remove("sooner")
    assert queue.next_deadline() == 10
    overdue = []
    for job_id in queue.overdue(30):
        queue.remove(job_id)
        overdue.append(job_id)
    assert overdue == ["soon", "late"]
    assert queue.next_deadline() is None
    assert list(queue.waiting) == ["patient"]


def test_a_heap_does_not_grow_with_the_jobs_that_have_left():
    heap = StrikeHeap()
    for number in range(10_000):
        heap.push(str(number), (float(number), number))
        if number >= 10:
            heap.strike(str(number - 10))
    assert len(heap) == 10
    assert len(heap._heap) <= SMALL_HEAP + 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-2, 2), st.booleans()), max_size=60))
def test_in_any_order_each_job_leaves_once_and_no_client_has_two_turns_while_another_waits(jobs):
    queue = backlog()
    for number, (client, priority, _) in enumerate(jobs):
        queue.push(f"{client}{number}", client, priority=priority, deadline=float(number))
    for number, (client, _, removed) in enumerate(jobs):
        if removed:
            queue.remove(f"{client}{number}")
    queue.validate()
    left = Counter(f"{client}{number}" for number, (client, _, removed) in enumerate(jobs) if not removed)
    order = in_turn(queue)
    assert Counter(order) == left
    for index, (one, other) in enumerate(pairwise(order)):
        if one[0] == other[0]:
            assert {name[0] for name in order[index:]} == {one[0]}, "a client was served twice while another waited"


# ---- shares of worker time ----


class Loop:
    """Submits jobs of one length, so many at a time, to a pool that is simulated."""

    def __init__(self, client: str, job_s: float, *, ahead: int, loop: str = "", begins_s: float = 0.0) -> None:
        self.client, self.loop, self.job_s, self.ahead, self.begins_s = client, loop, job_s, ahead, begins_s
        self.open = 0
        self.had_s = 0.0


def simulate(queue: Backlog, loops: list[Loop], *, workers: int, until_s: float) -> None:
    """Each loop keeps `ahead` jobs waiting or running. Counts the worker time that each has had."""
    running: list[tuple[float, int, Loop, float, float]] = []
    numbers = count()
    now, jobs = 0.0, {}
    while now < until_s:
        for each in loops:
            while each.begins_s <= now and each.open < each.ahead:
                job_id = str(next(numbers))
                jobs[job_id] = each
                each.open += 1
                queue.push(job_id, each.client, loop=each.loop)
        while len(running) < workers and (client := next(queue.clients(), None)) is not None:
            each = jobs.pop(queue.pop(client))
            charged_s = queue.turns.begin(client, each.loop)
            heapq.heappush(running, (now + each.job_s, next(numbers), each, charged_s, now))
        now, _, each, charged_s, began = heapq.heappop(running)
        each.open -= 1
        each.had_s += now - began
        queue.turns.end(each.client, each.loop, charged_s=charged_s, took_s=now - began)


def shares(loops: list[Loop]) -> list[float]:
    total = sum(each.had_s for each in loops)
    return [each.had_s / total for each in loops]


def test_users_get_equal_worker_time_whatever_the_length_and_number_of_their_jobs():
    loops = [Loop("ann", 10.0, ahead=500), Loop("bob", 0.1, ahead=20), Loop("cid", 1.0, ahead=8)]
    simulate(backlog(), loops, workers=4, until_s=2000)
    assert shares(loops) == pytest.approx([1 / 3] * 3, rel=0.03)


def test_weights_are_shares():
    loops = [Loop("ann", 3.0, ahead=100), Loop("bob", 0.2, ahead=100), Loop("cid", 1.0, ahead=100)]
    queue = Backlog(max_jobs=1000, max_per_client=1000, weights={"ann": 3.0, "cid": 0.5})
    simulate(queue, loops, workers=4, until_s=2000)
    assert shares(loops) == pytest.approx([3 / 4.5, 1 / 4.5, 0.5 / 4.5], rel=0.05)


def test_loops_of_one_user_share_what_the_user_has():
    loops = [
        Loop("ann", 5.0, ahead=300, loop="greedy"),
        Loop("ann", 0.1, ahead=10, loop="small"),
        Loop("bob", 1.0, ahead=30),
    ]
    simulate(backlog(), loops, workers=4, until_s=2000)
    assert shares(loops) == pytest.approx([0.25, 0.25, 0.5], rel=0.05)


def test_time_that_was_not_used_is_not_saved_up():
    loops = [Loop("ann", 1.0, ahead=50), Loop("bob", 1.0, ahead=50, begins_s=1000)]
    queue = backlog()
    simulate(queue, loops, workers=2, until_s=1100)
    assert loops[1].had_s == pytest.approx(100, rel=0.1)


def test_a_loop_with_one_job_at_a_time_is_served_next_however_many_another_one_has_queued():
    loops = [Loop("ann", 1.0, ahead=1000), Loop("ann", 0.1, ahead=1, loop="modest")]
    simulate(backlog(), loops, workers=2, until_s=1000)
    assert loops[1].had_s > 90, "it waited for more than one other job each time"


def test_a_client_at_its_quota_of_running_jobs_waits_and_its_jobs_are_no_demand():
    queue = Backlog(max_jobs=10, max_per_client=10, max_running=1)
    for name in ("a0", "a1", "b0"):
        queue.push(name, name[0])
    assert queue.eligible() == 2
    queue.pop("a")
    charged_s = queue.turns.begin("a", "")
    assert list(queue.clients()) == ["b"]
    assert queue.eligible() == 1
    queue.turns.end("a", "", charged_s=charged_s, took_s=1.0)
    assert set(queue.clients()) == {"a", "b"}


def test_the_place_of_a_job_counts_those_that_will_be_served_before_it():
    queue = backlog()
    for name in ("a0", "a1", "a2", "b0", "b1"):
        queue.push(name, name[0])
    assert queue.places("b") == {"b0": 2, "b1": 4}
    assert queue.places("nobody") == {}


def test_the_hint_when_to_try_again_follows_how_fast_jobs_end():
    queue = backlog()
    for _ in range(50):
        queue.turns.end("ann", "", charged_s=queue.turns.begin("ann", ""), took_s=8.0)
    for _ in range(4):
        queue.turns.begin("ann", "")
    assert queue.retry_after_s() == pytest.approx(2.0, rel=0.1)


def run_jobs(core: Core, count: int, *, last_runs_on: bool = False) -> None:
    """Jobs of ann, one after the other, without the checks that a Core makes: they ask for shares."""
    for number in range(count):
        accepted = core.pool.handle(JobSubmitted(job_id=str(number), client="ann", wall_s=1.0), core.now)[0]
        if last_runs_on and number == count - 1:
            return
        worker_id = accepted.dispatch.worker_id
        core.pool.handle(JobEnded(worker_id=worker_id, outcome=Outcome.OK), core.now)
        core.pool.handle(WorkerFreed(worker_id=worker_id), core.now)


def test_the_use_of_workers_is_counted_when_a_share_is_asked_for():
    core = Core(min_workers=2, max_workers=2).up()
    run_jobs(core, 3, last_runs_on=True)
    backlog = core.pool._state.backlog
    assert len(backlog.uses) == 5
    assert (backlog.turns["ann"].running, backlog.turns.running) == (1, 1)
    assert not backlog.uses


def test_uses_that_nobody_asks_for_are_counted_when_they_are_many():
    core = Core(min_workers=2, max_workers=2, max_jobs=10_000).up()
    run_jobs(core, MOST_UNCOUNTED)
    assert len(core.pool._state.backlog.uses) < MOST_UNCOUNTED


def test_shares_of_loops_that_are_gone_are_forgotten():
    turns = Turns({})
    for number in range(20_000):
        turns.end(str(number), charged_s=turns.begin(str(number)), took_s=1.0)
    assert len(turns._shares) < 10_000
