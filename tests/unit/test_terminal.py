"""No control character of a job, a worker or a client reaches the terminal of the user of pool-admin."""

import os
import pty
import subprocess
import sys
import unicodedata

import pytest

from pool.client import JobOutcomeError
from pool.model import JobError, JobResult, Outcome
from tests.support.waiting import Waiting
from tests.unit.fake_admin import AdminSocket, Refusal, a_pool, a_snapshot, a_worker, admin
from tests.unit.fake_daemon import HOLD

#: Moves the cursor, sets colours, clears the screen, sets the title, types into the shell (answer-back); as escape
#: sequences and as single C1 characters; carriage return, bell, backspace; bidi overrides and isolates; a lone surrogate.
HOSTILE = "evil\x1b[2J\x1b[31m\x1b]0;title\x07\x1b[6n\x9b2J\x9dx\x9c\r\b\x00\x7f\x0c\u202e\u2066\u200f\ud800\U000e0041"
HOSTILE_TEXT = HOSTILE.replace("\ud800", "")


def forbidden(text):
    """The characters of categories Cc, Cf and Cs that it has, but for line end and tab."""
    return {each for each in text if unicodedata.category(each) in {"Cc", "Cf", "Cs"} and each not in "\n\t"}


def poisoned(value):
    """The same answer with every text, also of keys that name outcomes and the like, made hostile."""
    if isinstance(value, dict):
        return {key: poisoned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    return HOSTILE_TEXT + value if isinstance(value, str) else value


@pytest.fixture
def admin_socket(tmp_path):
    socket = AdminSocket(tmp_path / "a")
    yield socket
    socket.close()


DATASETS = {HOSTILE_TEXT: {"path": "p", "digest": "d" * 64, "size_bytes": 7, "problem": "no"}}
POISON = [{"code": "c" * 16, "kills": 3, "refused_until_s": 9.0, "last": {"age_s": 1.0, "worker": "w", "what": "died"}}]
BREAKER = {"open": True, "failures": 3, "last_reason": "no", "retry_in_s": 2.0}
SNAPSHOT = a_snapshot(
    a_pool(
        workers=[a_worker(job="j")], datasets=DATASETS, poison=POISON, breaker=BREAKER,
        jobs={HOSTILE_TEXT: 3}, recycles={HOSTILE_TEXT: 4},
    ),
    alerts=[{"id": "a", "text": "t", "since": "2026-01-01T00:00:00+00:00"}],
)  # fmt: skip
JOB = {"id": "j", "pool": "p", "state": "done", "outcome": "ok", "client": "0", "age_s": 1.0, "worker": "w"}
STORY = {"id": "j", "pool": "p", "entries": [{"age_s": 1.0, "state": "s", "what": "w", "cause": "c"}]}


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(
    ("call", "answer", "command"),
    [
        ("status", SNAPSHOT, ["status"]),
        ("status", SNAPSHOT, ["workers"]),
        ("status", SNAPSHOT, ["poison"]),
        ("jobs", {"jobs": [JOB], "total": 1}, ["jobs"]),
        ("history", STORY, ["job", "j"]),
        ("cancel", {"text": "done"}, ["cancel", "j"]),
        ("drain", {"text": "done"}, ["drain"]),
        ("drain", Refusal("busy", HOSTILE_TEXT, name="x"), ["drain"]),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else None,
)
def test_what_the_daemon_answers_is_printed_visibly(admin_socket, call, answer, command, form):
    made = answer if isinstance(answer, Refusal) else poisoned(answer)
    admin_socket.answers[call] = lambda _: made
    result = admin(admin_socket, *command, *form)
    assert "evil" in result.output
    assert not forbidden(result.output), ascii(result.output)


def printed(daemon, tmp_path, *, terminal):
    """What `pool-admin run` writes to its stdout and stderr, which are a terminal or a pipe."""
    (tmp_path / "job.py").write_text(HOLD)
    command = [sys.executable, "-m", "pool.cli.admin", "run", "job.py"]
    read, write = pty.openpty() if terminal else os.pipe()
    environment = {**os.environ, "POOL_ENDPOINT": daemon.endpoint, "PYTHONUTF8": "1", "COLUMNS": "500"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=write, stderr=write
    )
    os.close(write)
    reading = Waiting(read_all, read)
    (job_id,) = daemon.open_jobs(1)
    daemon.print(job_id, "stdout", 0, HOSTILE_TEXT.encode())
    value = {"value": HOSTILE_TEXT}
    daemon.finish(job_id, value=value, output=(HOSTILE_TEXT.encode(), b"\x9b1m" + HOSTILE_TEXT.encode()))
    process.wait(60)
    return reading.end().decode(errors="replace")


def read_all(fd):
    found = b""
    while True:
        try:
            piece = os.read(fd, 65536)
        except OSError:  # the other end of a terminal is closed
            piece = b""
        if not piece:
            os.close(fd)
            return found
        found += piece


def test_the_output_of_a_job_is_made_visible_on_a_terminal(daemon, tmp_path):
    text = printed(daemon, tmp_path, terminal=True).replace("\r\n", "\n")
    assert "evil\\x1b[2J" in text
    assert not forbidden(text), ascii(text)


def test_the_output_of_a_job_goes_into_a_pipe_as_it_is(daemon, tmp_path):
    assert HOSTILE_TEXT in printed(daemon, tmp_path, terminal=False)


def test_the_text_of_an_error_of_a_future_can_be_printed(capsys):
    """An exception that nobody catches is printed by the interpreter."""
    error = JobError(type=HOSTILE, message=HOSTILE, traceback=f"Traceback\n{HOSTILE}")
    failed = JobOutcomeError(JobResult(job_id="j", outcome=Outcome.ERROR, error=error))
    assert not forbidden(str(failed))
    assert failed.result.error.message == HOSTILE
