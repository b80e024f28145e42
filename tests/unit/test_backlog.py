"""The queue in front of a pool: fair, bounded, and cheap to leave."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.core.backlog import SMALL_HEAP, Backlog, StrikeHeap


def backlog(*, max_jobs: int = 1000, max_per_client: int = 1000) -> Backlog:
    return Backlog(max_jobs=max_jobs, max_per_client=max_per_client)


def in_turn(queue: Backlog) -> list[str]:
    """Pop until it is empty, each time for the client whose turn it is."""
    order = []
    while queue.waiting:
        order.append(queue.pop(next(queue.clients())))
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
        queue.pop(next(queue.clients()))
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
    assert queue.pop("b") == "b0"
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
