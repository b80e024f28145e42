"""The answers of a chunk's calls: together they are no more than the daemon takes from a worker."""

from types import SimpleNamespace

import pytest
from runner.chunk import Answers

from pool import wire
from pool.daemon.worker_protocol import check_answer, largest_answer
from pool.model import Outcome

LIMITS = {"output": 4096, "result": 65536}
JOB = wire.Run(
    job_id="j", epoch=1, wall_s=9, cpu_s=2, memory=1 << 27, tmp=1 << 24, processes=4, calls=(1,) * wire.MAX_CALLS,
    **LIMITS,
)  # fmt: skip
NAMES = tuple(f"{number:03}".ljust(255, "x") for number in range(wire.MAX_FILES_OUT))


@pytest.mark.parametrize(
    ("names", "frames"),
    [(NAMES, wire.MAX_FILES_OUT), ((), wire.MAX_FRAMES - wire.FIXED_FRAMES), ((), 1)],
    ids=["files of long names", "many parts", "plain"],
)
def test_a_chunk_of_empty_answers_ends_before_it_is_too_large_for_the_daemon(names, frames):
    done = wire.Done(job_id="j", epoch=1, outcome=Outcome.OK, files=names)
    answers = Answers(JOB)
    while not answers.ended or answers._has_room():
        answers.add(done, [b""] * (wire.FIXED_FRAMES + frames))
    whole, payload = answers._done(b"", b"", cpu_s=0.0)
    check_answer(whole, payload, largest=largest_answer(SimpleNamespace(**LIMITS)))
    wire.decode_calls(payload[wire.FIXED_FRAMES])
    assert names or frames > 1 or answers.ended == wire.MAX_CALLS
