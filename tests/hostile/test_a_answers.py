"""Entries of class A that are no payloads: how a job ends, what it reports, and the bytes of its source."""

import pickle
import re
import signal
import sys

import msgspec
import pytest

from pool import wire
from pool.client import job
from pool.errors import TooLargeError
from pool.model import Limits, Outcome
from tests.hostile.alone import PYTHON
from tests.hostile.payloads import forgery

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("unharmed")]

TYPED = set(Outcome) - {Outcome.LOST, Outcome.CANCELLED}
#: Less than the nine seconds for which forgeries wait, and time for their answer on a busy machine.
SHORT = Limits(wall_s=5, cpu_s=2)


# ---- A34: what a job says of itself ----


@pytest.mark.parametrize("forged", forgery.FORGERIES, ids=lambda each: each.title)
def test_a34_a_forged_answer_is_at_most_a_lie_about_the_job_itself(forged, script, record):
    result = script(forgery.CODE + forged.code, limits=SHORT)
    assert result.outcome in forged.outcomes, result
    assert result.value in (None, forgery.VALUE)
    assert result.outcome is Outcome.OK or result.value is None
    record(
        "A34", forged.title, "INERT", stopped_by=["runner"], seen=f"{result.outcome}: {result.reason or result.value!r}"
    )


def test_a34_a_result_that_is_printed_is_text(script, record):
    printed = '{"outcome": "ok", "value": 7}\x00WCP\x01'
    result = script(f"import os\nfor fd in (1, 2):\n    os.write(fd, {printed.encode()!r})\nraise ValueError('true')\n")
    assert (result.outcome, result.error.type, result.value) == ("error", "ValueError", None)
    assert printed in result.stdout
    assert printed in result.stderr
    record("A34", "an answer printed on stdout and stderr", "INERT", stopped_by=["runner"], seen="error: ValueError")


def test_a34_an_answer_while_another_job_runs_reaches_no_other(client, daemon, record):
    slow = client.submit("import time\ntime.sleep(0.5)\nresult = 'own'\n", pool="screened")
    forged = client.run(forgery.CODE + "everywhere(answer())\ntime.sleep(5)\n", pool="open", limits=SHORT)
    other = client.result(slow, timeout=60)
    assert (forged.value, other.outcome, other.value) == (forgery.VALUE, "ok", "own")
    record(
        "A34",
        "an answer for the job of another worker",
        "INERT",
        stopped_by=["runner", "namespaces"],
        seen="its own only",
    )


# ---- A35: ends ----

ENDS = [
    ("SystemExit(0)", "raise SystemExit(0)", "ok"),
    ("SystemExit(3)", "raise SystemExit(3)", "error"),
    ("SystemExit with a text", "raise SystemExit('no')", "error"),
    ("SystemExit with a huge number", "raise SystemExit(1 << 5000)", "error"),
    ("KeyboardInterrupt", "raise KeyboardInterrupt", "error"),
    ("GeneratorExit", "raise GeneratorExit", "error"),
    ("a BaseException of its own", "class End(BaseException): ...\nraise End('x')", "error"),
    ("an error that cannot be shown", "class E(Exception):\n    def __str__(self): raise self\nraise E", "error"),
    ("an error whose text is no text", "class E(Exception):\n    def __str__(self): return 7\nraise E", "error"),
    ("an error that ends the process when shown", "import os\nclass E(Exception):\n    def __str__(self): os._exit(0)\nraise E", "crash"),
    ("a name of 10 MB", "raise type('E' * 10_000_000, (Exception,), {})", "error"),
    ("a text of 10 MB", "raise ValueError('x' * 10_000_000)", "error"),
    ("a chain of 10,000 causes", "e = None\nfor _ in range(10_000):\n    n = ValueError(); n.__cause__ = e; e = n\nraise e", "error"),
    ("os._exit(0)", "import os\nos._exit(0)", "crash"),
    ("os._exit(0) in an exit handler", "import atexit, os\natexit.register(os._exit, 0)\nresult = 7", "ok"),
    ("os.abort", "import os\nos.abort()", "crash"),
    *((f"{each.name} to itself", f"import os\nos.kill(os.getpid(), {int(each)})\nimport time\ntime.sleep(9)", "crash")
      for each in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGBUS)),
    ("SIGINT to itself", "import os\nos.kill(os.getpid(), 2)\nimport time\ntime.sleep(9)", "error"),
    ("SIGKILL to all it can see", "import os\nos.kill(-1, 9)", "error"),
    ("a null pointer", "import ctypes\nctypes.string_at(0)", "crash"),
    ("it closes its standard streams", "import sys\nsys.stdout.close(); sys.stderr.close()\nresult = 7", "ok"),
    ("it replaces its standard streams", "import sys\nsys.stdout = sys.stderr = sys.__stdout__ = object()\nresult = 7", "ok"),
]  # fmt: skip


@pytest.mark.parametrize(("title", "code", "expected"), ENDS, ids=[title for title, *_ in ENDS])
def test_a35_every_end_has_a_type_and_none_is_a_success_without_a_result(title, code, expected, script, record):
    result = script(code + "\n", limits=Limits(wall_s=60))
    assert result.outcome == expected, result
    assert (result.value == 7) == (expected == "ok" and "result = 7" in code)
    assert result.error is not None or result.outcome is not Outcome.ERROR
    record("A35", title, "INERT", stopped_by=["runner"], seen=f"{result.outcome}: {result.reason or result.value!r}")


# ---- A18, A40: text ----


def test_a18_a_cookie_does_not_change_how_the_source_is_read(client, script, outside, record):
    code = "# -*- coding: utf-7 -*-\n#+AAo-result = 7\n"
    assert script(code).value is None  # a comment stays a comment
    assert client.run(code, pool="screened").outcome is Outcome.REJECTED
    as_a_file = "def main(code):\n    open('it.py', 'w').write(code)\n    import sys; sys.path.insert(0, '.')\n    import it\n    return it.result\n"
    assert outside(as_a_file, code).value == "7"
    record(
        "A18", "a comment that is code in UTF-7", "INERT", stopped_by=["runner"], seen="a comment", outside="it runs"
    )


@pytest.mark.parametrize(
    "code",
    ["\ufeffresult = 7\n", "result = 7\x1a\n", "\x0cresult = 7\n", "result = 7\r", "\r\n\r\nresult = 7\r\n"],
    ids=ascii,
)
def test_a18_what_surrounds_the_source_changes_nothing(code, client, script):
    results = [script(code), client.run(code, pool="screened")]
    assert {(each.outcome, each.value) for each in results} <= {("ok", 7), ("error", None)}
    assert results[0].outcome == results[1].outcome


def test_a40_text_that_would_disturb_a_terminal_or_a_log_stays_in_the_result(script, daemon, record):
    nasty = "\x1b]0;owned\x07\x1b[2J\n2026-01-01 [error] forged%s{}\u202e\u2066\x00\ud800"
    result = script(
        f"import sys\nt = {nasty!r}\nprint(t[:-1])\nraise type(t[:40].replace(chr(0), ''), (Exception,), {{}})(t)\n"
    )
    assert result.outcome is Outcome.ERROR
    assert "forged" in result.error.message
    log = daemon.log.read_text()
    assert "owned" not in log
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", log)
    record(
        "A40",
        "control characters in output, message and type",
        "INERT",
        stopped_by=["runner", "daemon"],
        seen="none in the log",
    )


# ---- A24: answers are data ----


def test_a24_a_pickle_that_comes_back_is_bytes(script, outside, tmp_path, record):
    tmp_path.chmod(0o777)
    trap = tmp_path / "sprung"
    bomb = pickle.dumps(_Trap(str(trap)))
    assert script(f"result = {bomb!r}\n").value == bomb
    assert not trap.exists()
    outside("import pickle\ndef main(it):\n    pickle.loads(bytes.fromhex(it))\n", bomb.hex())
    assert trap.exists()
    record("A24", "a pickle as the value", "INERT", stopped_by=["daemon"], seen="bytes", outside="it opens a file")


class _Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("kind", range(0, 128, 8))
def test_a24_a_forged_value_of_any_kind_runs_nothing_here(kind, script, tmp_path, record):
    trap = tmp_path / "sprung"
    bomb = pickle.dumps(_Trap(str(trap)))
    for code in range(kind, kind + 8):
        value = b"\xc8" + len(bomb).to_bytes(2, "big") + bytes([code]) + bomb
        result = script(forgery.CODE + f"everywhere(answer(value={value!r}))\ntime.sleep(5)\n", limits=SHORT)
        assert result.outcome in {Outcome.OK, Outcome.ERROR}
        assert isinstance(result.value, (type(None), bytes, str, int, bytearray))
        assert not trap.exists()
    if kind == 0:
        record(
            "A24",
            "a pickle in each extension type of the value",
            "INERT",
            stopped_by=["daemon"],
            seen="no code of it runs",
        )


def test_a24_an_object_whose_methods_are_traps_is_refused_without_calling_one(script, record):
    code = """
import os
class Trap:
    def __getattribute__(self, name): os._exit(3)
    def __reduce_ex__(self, n): os._exit(3)
    def __iter__(self): os._exit(3)
    def __eq__(self, other): os._exit(3)
    def __repr__(self): os._exit(3)
    __hash__ = None
result = [Trap()]
"""
    result = script(code)
    assert (result.outcome, result.error.type) == ("error", "pool.errors.ValueCodecError"), result
    record(
        "A24", "an object with traps for methods as the value", "ERR", stopped_by=["runner"], seen=result.error.message
    )


# ---- A37, A38, A39: source ----


HIDDEN = """
import os, time
def main(turn):
    used, telling = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            while time.process_time() < 0.3: pass
            os.write(telling, b"1")
            while time.process_time() < 1: pass
        os._exit(0)
    os.wait()
    os.read(used, 1)
    return turn
"""


def test_a34_the_processor_time_of_a_process_that_nobody_waits_for_is_its_calls(client, unharmed, outside, record):
    """Each call ends while the process still runs, and another one may find it: both are of one program."""
    results = list(client.map(HIDDEN, [(1,), (2,)], entry="main", chunksize=2, pool="open"))
    assert [each.value for each in results] == [1, 2]
    assert all(each.usage.cpu_s > 0.15 for each in results), [each.usage for each in results]
    alone = "import resource\n" + HIDDEN.replace(
        "return turn", "return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime"
    )
    assert float(outside(alone, 1).value) < 0.15, "it does not count for the process that has started it"
    record("A34", "a chunk: processor time in processes that nobody waits for", "INERT", stopped_by=["runner"],
           seen="it counts for the call", outside="it counts for nobody")  # fmt: skip


def test_a37_what_reads_a_program_is_the_python_that_runs_it(client, script, record):
    version = client.run("import sys\nresult = tuple(sys.version_info[:2])\n", pool="open").value
    assert version == (tuple(map(int, PYTHON.split("."))) if PYTHON else sys.version_info[:2])
    for code in ("type T = int\n", "def f[T](x: T): ...\n", "x = t'{1}'\n"):
        ends = {str(script(code).outcome), str(client.run(code, pool="screened").outcome)}
        expected = "error" if version < ((3, 14) if "t'" in code else (3, 12)) else "ok"
        assert ends == {expected}
    submission = client.jobs.make(lambda: 7, {"pool": "open"})
    message = msgspec.structs.replace(submission.message, python="3.99")
    foreign = job.Submission(message, [*wire.encode(message), *submission.frames[2:]])
    answer = client.to_result(client.connection.submit(foreign).result(60))
    assert (answer.outcome, answer.error.type) == ("error", "EntryError")
    record("A37", "syntax or byte code of another Python", "ERR", stopped_by=["runner"], seen="SyntaxError; EntryError")


BOMBS = [
    ("100,000 parentheses", "result = " + "(" * 100_000 + "1" + ")" * 100_000),
    ("200,000 times +0", "result = 0" + "+0" * 200_000),
    ("5,000 times not", "result = " + "not " * 5_000 + "1"),
    ("4 hundred thousand hex digits", "result = 0x" + "f" * 400_000 + " & 7"),
    ("an integer of 10,000 digits", "result = " + "9" * 10_000),
    ("10,000 decorators", "@str\n" * 10_000 + "def f(): ...\nresult = 7"),
    ("3,000 times elif", "x = -1\nif x == 0: pass\n" + "".join(f"elif x == {n}: pass\n" for n in range(3000)) + "result = 7"),
    ("95 blocks deep", "".join("    " * n + "if 1:\n" for n in range(95)) + "    " * 95 + "result = 7"),
    ("200 lambdas deep", "result = " + "lambda: " * 200 + "7\nresult = 7"),
    ("5,000 subscripts", "x = None\ndef f():\n    return x" + "[0]" * 5_000 + "\nresult = 7"),
    ("20 for in one comprehension", "result = [1 " + "for x in (1, 2) " * 20 + "][:7]"),
    ("a constant that grows when folded", "def f(): return (('a' * 4096,) * 250,) * 250\nresult = 7"),
    ("9**9**9 as a constant", "def f(): return 9**9**9\nresult = 7"),
    ("a string that is shifted", "def f(): return 1 << (1 << 62)\nresult = 7"),
    ("f-strings in f-strings", "result = " + "f'{" * 2 + "1" + "}'" * 2),
]  # fmt: skip


@pytest.mark.parametrize("pool", ["open", "screened"])
@pytest.mark.parametrize(("title", "code"), BOMBS, ids=[title for title, _ in BOMBS])
def test_a38_a_program_that_is_expensive_to_parse_affects_no_other_job(title, code, pool, client, record):
    result = client.run(code + "\n", pool=pool, limits=Limits(wall_s=8, cpu_s=8, memory="256m"))
    assert result.outcome in TYPED, result
    how = {"ok": "INERT", "error": "ERR", "rejected": "REJ"}.get(result.outcome, "KILL")
    seen = f"{result.outcome}: {result.error.type if result.error else result.reason}"
    record(
        "A38",
        title,
        how,
        stopped_by=["screen"] if how == "REJ" else ["runner", "limits"],
        seen=seen,
        screen_off=pool == "open",
    )


@pytest.mark.parametrize(
    "line", ["a = 1\n", "#" * 79 + "\n", "x = {1: [2, (3,)]}\n"], ids=["short", "comments", "nested"]
)
def test_a39_too_much_source_is_refused_before_it_is_parsed(line, client, script, record):
    half, two = line * (512 * 1024 // len(line)), line * (2 * 1024 * 1024 // len(line))
    with pytest.raises(TooLargeError):
        client.run(two, pool="open")
    refused = client.run(half, pool="screened")
    assert [each.rule for each in refused.findings] == ["S501"]
    assert refused.timings.run_ms < 60_000
    let_in = script(half, limits=Limits(wall_s=10, memory="64m"))
    assert let_in.outcome in {Outcome.OK, Outcome.MEMORY, Outcome.TIMEOUT}
    record(
        "A39", f"512 KB of {line.strip():.12s}", "REJ", stopped_by=["screen", "limits"], seen="S501", screen_off=False
    )
    record("A39", f"512 KB of {line.strip():.12s}", "INERT", stopped_by=["limits"], seen=str(let_in.outcome))


def test_a6_reading_a_program_runs_nothing_of_it(client, record):
    code = "import os\n@print\nclass A: ...\ndef f(x=print('default')) -> print('annotation'): ...\nclass B(print('base') or object): ...\n"
    result = client.run(code, pool="screened")
    assert (result.outcome, result.stdout, result.stderr) == ("rejected", "", "")
    record(
        "A6",
        "decorator, default, annotation and base beside a finding",
        "REJ",
        stopped_by=["screen"],
        seen="nothing printed",
        screen_off=False,
    )
