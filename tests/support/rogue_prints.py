"""Scripts of a taken-over runner (rogue_peer.py): false messages about its job's output."""

from pool import wire
from pool.model import Outcome


def _start(peer, run):
    peer.say(wire.Started(job_id=run.job_id, epoch=run.epoch))


def _end(peer, run, *payload):
    peer.say(wire.Done(job_id=run.job_id, epoch=run.epoch, outcome=Outcome.OK), *payload)


def _asked(peer, run):
    """Start the job and wait until its output is asked for; a piece of it."""
    _start(peer, run)
    order, _ = peer.hear(10)
    assert isinstance(order, wire.Stream), order

    def piece(text, offset, **lies):
        fields = {"job_id": run.job_id, "epoch": run.epoch, "name": "stdout", "offset": offset}
        peer.say(wire.Printed(**fields | lies), text)

    return piece


def job_prints_unasked(peer, run):
    _start(peer, run)
    peer.say(wire.Printed(job_id=run.job_id, epoch=run.epoch, name="stdout", offset=0), b"x")


def job_prints_of_another_job(peer, run):
    _asked(peer, run)(b"x", 0, job_id="somebody-elses")


def job_prints_of_another_lease(peer, run):
    _asked(peer, run)(b"x", 0, epoch=run.epoch + 1)


def job_prints_without_end(peer, run):
    piece, block = _asked(peer, run), b"x" * wire.MAX_PRINTED_BYTES
    for count in range(1 << 20):
        piece(block, count * len(block))


def job_prints_at_another_place(peer, run):
    piece = _asked(peer, run)
    piece(b"abc", 0)
    piece(b"xyz", 1)


def job_prints_nothing(peer, run):
    _asked(peer, run)(b"", 0)


def job_prints_too_much_at_once(peer, run):
    _asked(peer, run)(b"x" * (wire.MAX_PRINTED_BYTES + 1), 0)


def job_prints_crumbs(peer, run):
    piece = _asked(peer, run)
    for offset in range(1 << 20):
        piece(b"x", offset)


def job_prints_what_it_then_denies(peer, run):
    _asked(peer, run)(b"abc", 0)
    _end(peer, run, b"abX", b"", b"")


def job_prints_after_its_end(peer, run):
    piece = _asked(peer, run)
    _end(peer, run, b"", b"", b"")
    piece(b"x", 0)
