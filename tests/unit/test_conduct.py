"""What a worker may say, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool import wire
from pool.daemon.conduct import MAX_TEXT, Conduct, shown
from pool.daemon.results import check
from pool.errors import RemoteProtocolError
from pool.model import Outcome

HELLO = wire.Hello(runner="1", sources="s", python="3.11")
READY = wire.Ready(boot_ms=1, preload_ms=1, isolation="plain")
BEAT = wire.Heartbeat()
EMPTY = (b"", b"", b"")


def started(job="j", epoch=1):
    return wire.Started(job_id=job, epoch=epoch)


def done(job="j", epoch=1, **more):
    return wire.Done(job_id=job, epoch=epoch, **{"outcome": Outcome.OK} | more)


def printed(job="j", epoch=1):
    return wire.Printed(job_id=job, epoch=epoch, name="stdout", offset=0)


def freed(epoch=1):
    return wire.Freed(epoch=epoch)


def conduct(*words, lease=True):
    it = Conduct(heartbeat_s=2)
    for word in (HELLO, READY):
        it.hear(word, 0)
    if lease:
        it.lease("j", 1)
    for word in words:
        it.hear(word, 0)
    return it


def test_an_honest_worker_is_heard_from_hello_to_its_second_job():
    it = conduct(BEAT, started(), done(), BEAT, freed(), BEAT)
    it.lease("k", 2)
    for word in (started("k", 2), done("k", 2), freed(2), wire.Broken(reason="the end")):
        it.hear(word, 1)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ((), done()),
        ((), freed()),
        ((), HELLO),
        ((), READY),
        ((), started("other")),
        ((), started(epoch=2)),
        ((started(),), started()),
        ((started(),), BEAT),
        ((started(),), freed()),
        ((started(),), done("other")),
        ((started(),), done(epoch=0)),
        ((started(), done()), done()),
        ((started(), done()), started()),
        ((started(), done()), freed(2)),
        ((started(), done(), freed()), freed()),
        ((started(), done(), freed()), done()),
        ((started(), done(), freed()), started()),
    ],
)
def test_the_first_word_out_of_turn_is_refused(said, word):
    it = conduct(*said)
    with pytest.raises(RemoteProtocolError, match="it said"):
        it.hear(word, 0)


@pytest.mark.parametrize("word", [READY, BEAT, started("", 0), done("noop", 0), freed(0)])
def test_nothing_comes_before_hello(word):
    with pytest.raises(RemoteProtocolError, match="has not said Hello"):
        Conduct(heartbeat_s=2).hear(word, 0)


def test_a_worker_without_a_job_has_nothing_to_report():
    for word in (started(), done(), freed()):
        with pytest.raises(RemoteProtocolError, match="has no job"):
            conduct(lease=False).hear(word, 0)


def test_beats_may_pile_up_while_nobody_listens_but_not_come_more_often_than_asked_for():
    it = conduct(lease=False)
    it.hear(BEAT, 0)
    for _ in range(300):  # ten minutes of beats, read at once
        it.hear(BEAT, 600)
    flood = conduct(lease=False)
    for _ in range(16):
        flood.hear(BEAT, 1)
    with pytest.raises(RemoteProtocolError, match="it beat"):
        flood.hear(BEAT, 1)


def test_a_worker_that_was_asked_for_it_says_what_its_job_prints_until_it_is_done():
    it = conduct()
    assert it.stream() == wire.Stream(job_id="j", epoch=1)
    assert it.stream() is None  # once is enough
    for word in (started(), printed(), printed(), done()):
        it.hear(word, 0)
    with pytest.raises(RemoteProtocolError, match="it said Printed while it clears up"):
        it.hear(printed(), 0)


@pytest.mark.parametrize(
    ("said", "word", "problem"),
    [
        ((), printed(), "was given a job"),
        ((started(),), printed("k"), "of job k"),
        ((started(),), printed(epoch=2), "epoch 2"),
        ((started(), done(), freed()), printed(), "has no job"),
    ],
)
def test_what_is_printed_is_of_the_lease_and_of_a_running_job(said, word, problem):
    it = conduct()
    assert it.stream()
    for each in said:
        it.hear(each, 0)
    with pytest.raises(RemoteProtocolError, match=problem):
        it.hear(word, 0)


def test_nobody_prints_unasked_and_being_asked_is_for_one_lease():
    with pytest.raises(RemoteProtocolError, match="nobody had asked"):
        conduct(started()).hear(printed(), 0)
    it = conduct()
    it.stream()
    for word in (started(), done(), freed()):
        it.hear(word, 0)
    assert it.stream() is None
    it.lease("k", 2)
    it.hear(started("k", 2), 0)
    with pytest.raises(RemoteProtocolError, match="nobody had asked"):
        it.hear(printed("k", 2), 0)


@given(st.text(max_size=5000))
def test_text_of_a_worker_is_printable_and_bounded(text):
    seen = shown(text)
    assert seen.isprintable()
    assert len(seen) <= MAX_TEXT


def test_what_a_worker_says_is_made_visible_before_anybody_keeps_it():
    it = conduct(started())
    assert it.hear(done(reason="a\x1b[2Jb\n"), 0).reason == "a\\x1b[2Jb\\n"
    new = Conduct(heartbeat_s=2)
    new.hear(HELLO, 0)
    ready = wire.Ready(boot_ms=1, preload_ms=1, isolation="\x07", missing=("\u202e", "plain"))
    heard = new.hear(ready, 0)
    assert (heard.isolation, heard.missing) == ("\\x07", ("\\u202e", "plain"))


@pytest.mark.parametrize(
    ("lie", "payload"),
    [
        ({"outcome": Outcome.LOST}, EMPTY),
        ({"files": ("../x",)}, (*EMPTY, b"")),
        ({"files": ("a",)}, EMPTY),
        ({"exit_code": 256}, EMPTY),
        ({"signal": 1000}, EMPTY),
        ({"signal": -9}, EMPTY),
        ({"truncated": ("stdin",)}, EMPTY),
        ({}, EMPTY[:2]),
        ({}, (*EMPTY, b"x" * 1001)),
    ],
)
def test_an_answer_that_cannot_be_is_refused(lie, payload):
    with pytest.raises(RemoteProtocolError):
        check(done(**lie), payload, largest=1000)
