"""Which jobs get their large arguments as a file."""

import os

import msgspec
import pytest

from pool import wire
from pool.daemon.job import JOB_BYTES, Grader, Job
from pool.daemon.job_body import body_of
from pool.daemon.journal import NoJournal
from pool.daemon.journal_entries import Accept, places
from pool.daemon.journal_file import JournalFile
from pool.wire import MAPPED_BYTES

RUN = wire.Run(
    job_id="j", epoch=1, wall_s=1, cpu_s=1, memory=1, tmp=1, output=1, result=1, processes=1, files=("a", "b")
)
LARGE = os.urandom(MAPPED_BYTES)
PAYLOAD = (b"code", b"", LARGE, b"b", b"head", LARGE[::-1], LARGE[:-1])


@pytest.fixture
def file(tmp_path):
    it = JournalFile(tmp_path / "journal", fsync=False)
    it.commit([Accept(1, "1000/j", "default", b"", b"", PAYLOAD, 0.0)])
    yield it
    it.close()


class Journal(NoJournal):
    def __init__(self, file):
        self._file = file

    def open_payload(self, number):
        return self._file.bodies.open(f"{number}.job")


def job(payload=PAYLOAD, run=RUN, **fields):
    size = JOB_BYTES + sum(map(len, payload))
    return Job(key="1000/j", client="1000", pool="default", received_ns=0, run=run, payload=payload, held_bytes=size, number=1, **fields)  # fmt: skip


def test_large_arguments_are_in_the_file_where_run_says_and_all_else_is_in_the_message(file):
    body = body_of(job(), RUN, Journal(file))
    starts, _ = places([*map(len, PAYLOAD)])
    assert body.run == msgspec.structs.replace(RUN, mapped=((1, starts[5], len(LARGE)),))
    assert body.payload == [*PAYLOAD[:5], b"", PAYLOAD[6]]
    number, start, size = body.run.mapped[0]
    assert os.pread(body.descriptor, size, start) == PAYLOAD[4 + number]
    os.close(body.descriptor)


def test_the_descriptor_can_only_read_and_nobody_else_can_open_the_file(file, tmp_path):
    body = body_of(job(), RUN, Journal(file))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(body.descriptor, b"x")
    assert os.fstat(body.descriptor).st_mode & 0o777 == 0o600
    os.close(body.descriptor)


GRADER = Grader(run=RUN, code="", frames=2)
IN_THE_MESSAGE = {
    "one with a grader, whose code is in the same file": job(grader=GRADER, grader_payload=(b"code", b"")),
    "one whose calls run apart": job(run=msgspec.structs.replace(RUN, apart=True)),
    "one that grades": job(whole=job()),
    "a small one": job(payload=(b"code", b"", b"a", b"b", b"x" * 70_000)),
    "one whose files are large, and its arguments are not": job(payload=(b"code", b"", LARGE, LARGE, b"x")),
    "one whose header has no room for the places": job(run=msgspec.structs.replace(RUN, argv=("x" * 8191,) * 8)),
    "one that the journal does not have": msgspec.structs.replace(job(), number=2),
}


@pytest.mark.parametrize("which", IN_THE_MESSAGE)
def test_a_job_of_another_kind_is_sent_whole(which, file):
    of_this_kind = IN_THE_MESSAGE[which]
    assert body_of(of_this_kind, of_this_kind.run, Journal(file)) is None


def test_without_a_journal_there_is_no_file():
    assert body_of(job(), RUN, NoJournal()) is None
