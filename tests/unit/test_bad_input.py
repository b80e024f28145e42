"""Bad input, field by field: what a client refuses before it sends it, and what the daemon refuses from one that does not.

Every refusal is an error of `pool.errors`; after each the next job has the right value. Workers are plain processes.
"""

import math
import time

import msgspec
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool import values, wire
from pool.client import job
from pool.client.options import JobOptions
from pool.errors import InvalidJobError, JobRefusedError, PoolError, ValueCodecError
from pool.model import Limits, Outcome
from tests.support.daemons import module_daemon

POOL = {
    "size": {"min": 1, "max": 1},
    "recycle": {"max_jobs": 1_000_000},
    "preload": {"modules": []},
    "poison": {"kills": 0},
    "limits": {"wall_s": 20, "cpu_s": 20, "memory": "256m", "output": "64k", "result": "1m"},
    "env_allow": ["FREE"],
}
FAST = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


daemon = module_daemon({"default": POOL})
pytestmark = pytest.mark.usefixtures("next_job_is_served")


@pytest.fixture(scope="module")
def ask(daemon):
    """Send frames as they are; what the daemon says to them. One connection: a refusal does not end it."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(daemon.endpoint)

        def asked(header, *payload):
            dealer.send_multipart([wire.PREAMBLE, msgspec.msgpack.encode(header), *payload])
            assert dealer.poll(60_000), "no answer"
            return wire.decode(wire.to_client, dealer.recv_multipart())[0]

        yield asked


# ---- through the client --------------------------------------------------------------------------------------------


class Strange:
    """Of no type that any field takes."""


WRONG = {
    "None": None,
    "a flag": True,
    "a number": 7,
    "less than nothing": -1,
    "a huge number": 1 << 80,
    "nan": math.nan,
    "infinity": math.inf,
    "text": "x",
    "no text": "",
    "text with NUL": "a\0b",
    "a path": "../../x",
    "long text": "x" * 10_000,
    "a lone surrogate": "\ud800",
    "bytes": b"\xff\xfe",
    "a list": ["x"],
    "a set": {1},
    "a mapping": {"x": 1},
    "a mapping of numbers": {1: b"x"},
    "a mapping of strange things": {"x": Strange()},
    "a strange thing": Strange(),
    "a class": Strange,
}
#: What is right after all, by field.
RIGHT = {
    "code": {"text", "no text", "long text", "a path", "text with NUL", "a class"},
    "entry": {"None", "text"},
    "args": {"None", "a list"},
    "kwargs": {"None", "a mapping"},
    "stdin": {"None", "text", "no text", "text with NUL", "a path", "long text", "bytes"},
    "files": {"None"},
    "env": {"None"},
    "limits": {"None"},
    "argv": {"None", "a list"},
    "seed": {"None", "a number"},
    "pool": {"None", "text", "a path"},
    "priority": {"None", "a number", "less than nothing"},
    "job_id": {"None", "text"},
    "queue_timeout": {"None", "a number"},
    "retries": {"None", "a number"},
    "explain_denials": {"None", "a flag"},
    "trace": {"None", "a flag"},
    "strip_fences": {"None", "a flag"},
    "grade": {"None", "text", "no text", "long text", "a path", "text with NUL", "a class"},
    "grade_args": {"None"},  # there is no grade
}


def test_every_option_of_a_job_is_in_the_table():
    elsewhere = {"on_disconnect"}  # a client may have one too: test_client.py
    assert RIGHT.keys() == JobOptions.__annotations__.keys() - elsewhere | {"code"}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("field", RIGHT)
def test_a_field_takes_what_is_right_and_refuses_the_rest_before_it_is_sent(field, kind):
    options = {"code": "result = 1", field: WRONG[kind]}
    code = options.pop("code")
    if field in {"args", "kwargs"}:
        options["entry"] = "main"
    if kind in RIGHT[field]:
        job.build(code, options, pool="default")
        return
    with pytest.raises(JobRefusedError) as refused:
        job.build(code, options, pool="default")
    assert field in refused.value.message.split(":")[0] or refused.value.fields.get("argument", "").startswith(field)
    assert "; " in refused.value.message or isinstance(refused.value, ValueCodecError), "what to do"


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", ["wall_s", "cpu_s", "memory", "tmp", "output", "result", "processes"])
def test_a_limit_takes_a_number_of_its_kind_and_nothing_else(name, kind):
    right = {"None"} if name in {"memory", "tmp"} else {"None", "a number"}  # 7 bytes are too few for those
    if kind in right:
        Limits(**{name: WRONG[kind]})
        return
    with pytest.raises(JobRefusedError, match=name):
        job.build("x = 1", {"limits": Limits(**{name: WRONG[kind]})}, pool="default")


def test_a_size_that_was_meant_in_another_unit_is_refused_with_the_text_to_write():
    with pytest.raises(InvalidJobError, match=r'256 is 256 bytes, .* write "256m"'):
        Limits(memory=256)
    with pytest.raises(InvalidJobError, match=r"'64' is 64 bytes, and the least is 4096"):
        Limits(tmp="64")


# ---- code ----

SOURCES = {
    "an unknown encoding": ("# -*- coding: no-such-thing -*-\nresult = 'ü'", "ok"),
    "an encoding that is another": ("# -*- coding: latin-1 -*-\nresult = 'ü'", "ok"),
    "an encoding that runs code": ("# -*- coding: unicode_escape -*-\nresult = 'ü'  # \\nresult = 'no'", "ok"),
    "a byte order mark, as of a file": ("\ufeffresult = 'ü'", "ok"),
    "two of them": ("\ufeff\ufeffresult = 1", "error"),
    "line ends of every kind": ("result = 1\r\nresult = 2\rresult = 'ü'\n", "ok"),
    "nothing": ("", "ok"),
    "no code at all": ("\n\n\x0c\n", "ok"),
    "a syntax error": ("def main(:\n", "error"),
    "a surrogate that is written out": ("result = '\\ud800'.encode('utf-8', 'surrogatepass')", "ok"),
    "parentheses without end": ("(" * 50_000, "error"),
    "a chain without end": ("x = " + "-" * 100_000 + "1", None),
}


@pytest.mark.parametrize("name", SOURCES)
def test_source_is_read_as_the_text_that_it_is(name, client):
    code, outcome = SOURCES[name]
    result = client.run(code)
    assert result.outcome == outcome or (outcome is None and result.outcome in {"error", "crash", "memory"}), result
    assert result.value in {None, "ü", b"\xed\xa0\x80"}


def test_a_byte_order_mark_is_in_no_line_that_is_shown(client):
    code = "\ufeffdef main():\n    return 1 / 0"
    assert client.run(code, entry="main").error.type == "ZeroDivisionError"
    assert "\ufeff" not in client.run("\ufeff1 / 0").error.traceback


ENTRIES = (
    "async def coroutine(): return 5\n"
    "async def fails(): raise KeyError('k')\n"
    "async def each(): yield 1\n"
    "def some(): yield 1\n"
    "class Plain: pass\n"
    "import dataclasses\n"
    "@dataclasses.dataclass\nclass Record:\n    x: int = 3\n"
    "number = 7\n"
)


@pytest.mark.parametrize("name", ["job.py", "./a/job.py", "/srv/jobs/job-2.py\n", r"jobs\job.py"])
def test_the_name_of_a_file_in_place_of_its_content_is_refused_and_says_so(name, client):
    with pytest.raises(InvalidJobError, match=r"code: .*is the name of a file and no source text; give its content"):
        client.run(name)
    with pytest.raises(InvalidJobError, match="is the name of a file"):
        client.run(name, entry="main")


@pytest.mark.parametrize(
    "source", ["import os.path as py", "result = 1  # job.py", "'job.py'", "result=7;result.real\n"]
)
def test_source_that_only_looks_like_the_name_of_a_file_is_run(source, client):
    assert client.run(source).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("entry", "outcome", "told"),
    [
        ("coroutine", "ok", 5),
        ("fails", "error", "KeyError"),
        ("each", "error", "async_generator"),
        ("some", "error", "generator"),
        ("Plain", "error", "Plain"),
        ("Record", "ok", {"x": 3}),
        ("number", "error", "name a function"),
        ("nothing", "error", "it defines"),
        ("Plain.x", "error", "it defines"),
    ],
)
def test_an_entry_of_every_kind_ends_as_documented(entry, outcome, told, client):
    result = client.run(ENTRIES, entry=entry)
    assert result.outcome == outcome, result
    assert told == result.value or told in f"{result.error.type} {result.error.message}"


# ---- past the client -----------------------------------------------------------------------------------------------

PAYLOAD = (b"result = 1", b"")


def submit(**fields):
    return {"type": "submit", "request": 1, "job_id": f"bad-{time.monotonic_ns()}"} | fields


BODIES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=30)
    | st.binary(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(sorted({*wire.Submit.__struct_fields__, "type", "unknown"} - {"watch", "stream", "explain"}))


@FAST
@given(field=FIELDS, value=BODIES)
def test_a_submit_with_any_value_in_any_field_is_taken_or_refused_with_a_code(field, value, ask):
    answer = ask(submit(**{field: value}), *PAYLOAD)
    assert isinstance(answer, wire.Accepted) or (answer.code in CODES and answer.message)


@FAST
@given(name=st.sampled_from(wire.JobLimits.__struct_fields__), value=BODIES)
def test_a_limit_of_any_value_is_taken_or_refused_with_a_code(name, value, ask):
    answer = ask(submit(limits={name: value}), *PAYLOAD)
    assert isinstance(answer, wire.Accepted) or answer.code in CODES


@FAST
@given(message=BODIES)
def test_a_header_that_is_no_message_is_refused_with_a_code(message, ask):
    assert ask(message, *PAYLOAD).code in CODES


def _codes(kind=PoolError):
    return {kind.code, *(code for each in kind.__subclasses__() for code in _codes(each))}


CODES = _codes()

REFUSED = {
    "a file below another file": (submit(files=["a/b", "a"]), *PAYLOAD, b"", b""),
    "a file with 10,000 characters": (submit(files=["x" * 10_000]), *PAYLOAD, b""),
    "a file twice": (submit(files=["a", "a"]), *PAYLOAD, b"", b""),
    "a file that is not there": (submit(files=["a"]), *PAYLOAD),
    "no stdin": (submit(), b"result = 1"),
    "no code": (submit(),),
    "code with NUL": (submit(), b"x = 1\0", b""),
    "code over its cap": (submit(), b"#" * (wire.MAX_CODE_BYTES + 1), b""),
    "more than the maximum": (submit(limits={"wall_s": 21.0}), *PAYLOAD),
    "a variable that is not allowed": (submit(env={"PATH": "x"}), *PAYLOAD),
    "a job that is not there": ({"type": "watch", "request": 1, "job_id": "none"},),
    "to cancel a job that is not there": ({"type": "cancel", "request": 1, "job_id": "none"},),
    "a word that is not a client's": ({"type": "done", "request": 1, "job_id": "a", "epoch": 1, "outcome": "ok"},),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_daemon_refuses_by_itself_what_a_client_would_have(name, ask, client):
    answer = ask(*REFUSED[name])
    assert isinstance(answer, wire.Refused)
    assert answer.code in CODES - {"pool"}


#: Valid for the daemon, which reads no payload: the job ends with a type.
INSIDE = {
    "code that is not UTF-8": (submit(), b"x = '\xff'", b""),
    "an entry with a lone surrogate": (submit(entry="no such name"), *PAYLOAD),
    "arguments that are garbage": (submit(entry="main"), b"def main(*a): return 1", b"", b"\xc1"),
    "arguments that are no pair": (submit(entry="main"), b"def main(*a): return 1", b"", *values.encode(7, max_bytes=99)),
    "arguments of the wrong kind": (submit(entry="main"), b"def main(*a): return 1", b"", *values.encode((7, []), max_bytes=99)),
    "arguments nested 100,000 deep": (submit(entry="main"), b"def main(*a): return 1", b"", b"\x91" * 100_000 + b"\xc0"),
    "keywords that are no names": (submit(entry="main"), b"def main(*a): return 1", b"", *values.encode(((), {1: 2}), max_bytes=99)),
    "a pickle that is none": (submit(pickled=True, python="3.11"), b"\x80garbage.", b""),
    "a pickle of another Python": (submit(pickled=True, python="2.7"), b"cos\nsystem\n.", b""),
    "a pickle that is no function": (submit(pickled=True, python="3.11"), b"N.", b""),
}  # fmt: skip


@pytest.mark.parametrize("name", INSIDE)
def test_what_only_the_job_can_read_ends_the_job_with_a_type(name, ask, client):
    header, *payload = INSIDE[name]
    answer = ask(header, *payload)
    assert isinstance(answer, wire.Accepted), answer
    result = client.result(header["job_id"], timeout=120)
    assert result.outcome is Outcome.ERROR, result
    assert result.error.type
