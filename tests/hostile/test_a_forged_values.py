"""Class A34: a job that replaces the encoder in its own process and sends bytes that no encoder makes, to a real client.

The client lives, the outcome is typed, and the next job is served; with and without numpy where the client runs, and with
the helper process of `Client(decode="process")`.
"""

import functools
import json
import signal
import time

import msgpack
import pytest

from pool import values
from pool.errors import ValueCodecError
from pool.model import Limits, Outcome
from tests.hostile.payloads import forgery
from tests.hostile.payloads.forged_values import CODE, FORGED
from tests.support.process import python

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("unharmed")]

#: What a client process prints: the outcome of the forged job, and the value of the job after it.
_CLIENT = """
import json, sys
hidden, decode, endpoint, code, path = json.loads(sys.stdin.readline())
for name in hidden:
    sys.modules[name] = None
from pool import Client
with Client(endpoint, timeout=120, pool="open", decode=decode) as client:
    with open(path, "rb") as file:
        forged = client.run(code, entry="main", args=[file.read()])
    error = forged.error
    after = client.run("result = 6 * 7")
    print(json.dumps([str(forged.outcome), error and error.type, error and error.message[:300], after.value]))
"""
#: A generous bound: the honest decoding of values of these sizes takes seconds at most, the attacks minutes to hours.
DEADLINE_S = 60


@functools.cache
def head_of(forged):
    """Made once: it may be megabytes."""
    return forged.head()


def ask(daemon, head, tmp_path, *, hidden=(), decode="inline"):
    """The forged job from a client process of its own: its words, and how the process ended."""
    (tmp_path / "head").write_bytes(head)
    given = json.dumps([list(hidden), decode, daemon.endpoint, CODE, str(tmp_path / "head")])
    done = python("-c", _CLIENT, input=given + "\n", timeout=180)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return json.loads(done.stdout)


@pytest.mark.parametrize("where", ["with numpy", "without numpy", "process"])
@pytest.mark.parametrize("forged", FORGED, ids=lambda each: each.title.replace(" ", "-"))
def test_a34_a_forged_value_is_a_typed_error_and_the_client_lives(forged, where, daemon, tmp_path, record):
    hidden = ["numpy", "pandas"] if where == "without numpy" else []
    decode = "process" if where == "process" else "inline"
    start = time.monotonic()
    outcome, kind, message, after = ask(daemon, head_of(forged), tmp_path, hidden=hidden, decode=decode)
    assert (outcome, kind, after) == ("error", "ValueCodecError", 42), message
    assert time.monotonic() - start < DEADLINE_S
    record("A34", f"{forged.title}, {where}", "INERT", stopped_by=["runner"], seen=message)


@pytest.mark.parametrize("forged", FORGED, ids=lambda each: each.title.replace(" ", "-"))
def test_a34_the_probe_works_where_nothing_stops_it(forged, outside):
    seen = outside(forged.control)
    if forged.dies:
        assert seen.status == -signal.SIGFPE, seen
    else:
        assert seen.value == "True", seen
    with pytest.raises(ValueCodecError):
        values.decode([head_of(forged)])


# ---- beside the value ----

#: Printed as escapes, so that no terminal interprets them.
CONTROLS = "\x1b[2J\x9b31m\x07\r\u202e\x00"


def fault(**fields):
    return msgpack.packb({"type": "T", "message": "m"} | fields, unicode_errors="surrogatepass")


FINDING = {"rule": "S1", "line": 1, "column": 1, "reason": "r", "remedy": "m"}
#: Bytes in the place of the error, the claim of the child (1: an exception, 4: refused) and whether the client reads them.
FAULTS = [
    ("a message of 1 MB", fault(message="x" * (1 << 20)), 1, False),
    ("a type of 1,000 characters", fault(type="T" * 1000), 1, False),
    ("a traceback of 1 MB", fault(traceback="x" * (1 << 20)), 1, False),
    ("a lone surrogate in the message", fault(message="\ud800"), 1, False),
    ("control characters in every text", fault(type=CONTROLS, message=CONTROLS, traceback=CONTROLS), 1, True),
    ("an error within an error", fault(message={"type": "T", "message": "m"}), 1, False),
    ("100,000 lists within each other", b"\x91" * 100_000, 1, False),
    ("a number for a type", fault(type=7), 1, False),
    ("101 findings", fault(findings=[FINDING] * 101), 4, False),
    ("a finding at line 2**63", fault(findings=[FINDING | {"line": 1 << 63}]), 4, False),
    ("a finding at a line that is not a number", fault(findings=[FINDING | {"line": float("nan")}]), 4, False),
    ("control characters in a finding", fault(findings=[FINDING | {"reason": CONTROLS}]), 4, True),
]


@pytest.mark.parametrize(
    ("title", "frame", "claim", "valid"), FAULTS, ids=[each[0].replace(" ", "-") for each in FAULTS]
)
def test_a34_a_forged_error_is_typed_and_bounded(title, frame, claim, valid, client, record):
    code = (
        forgery.CODE
        + f"def main(frame):\n    everywhere(answer(value=b'', fault=frame, claim={claim}))\n    time.sleep(9)\n"
    )
    result = client.run(code, entry="main", args=[frame], pool="open", limits=Limits(wall_s=5, cpu_s=2))
    assert result.outcome is (Outcome.ERROR if claim == 1 else Outcome.REJECTED), result
    assert (result.error.type != "InvalidError") == valid, result.error
    assert len(result.error.message) < 2000
    assert len(result.reason) < 2000
    record("A34", f"an error: {title}", "INERT", stopped_by=["runner"], seen=f"{result.outcome}: {result.error.type!a}")
