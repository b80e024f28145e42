"""Ways around the screen, class A of the catalogue: each with the screen on, with the screen off, and outside.

With the screen off a payload gets what it wants and then tries everything that code could go on to (`aftermath`): it
must not see, reach or change anything but its own sandbox, nor a trace of the job before it in the same worker.
"""

import sys

import pytest
from runner import output_files, without_programs

from pool.errors import InvalidJobError
from pool.model import Outcome
from tests.hostile.payloads import aftermath
from tests.hostile.payloads.screen import PAYLOADS
from tests.hostile.surroundings import at_rest

pytestmark = pytest.mark.docker

#: The layers that confine a program that the screen has let pass.
BELOW = ("job filter", "landlock", "namespaces", "container")
OWN_ENVIRONMENT = {
    "HOME",
    "HOSTNAME",
    "LANG",
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "JOBLIB_MULTIPROCESSING",
    "LOGNAME",
    "USER",
    "PYTHONHASHSEED",
    "TMPDIR",
    "TZ",
    output_files.VARIABLE,
    *without_programs.ALLOCATORS,
}
#: The outcomes that a harmless program may have.
TYPED = {Outcome.OK, Outcome.ERROR, Outcome.CRASH, Outcome.MEMORY}
_OUTSIDE = """
def main(code):
    space = {"__name__": "__main__"}
    exec(compile(code, "<job>", "exec", dont_inherit=True), space)
    return bool(space.get("result"))
"""
each_payload = pytest.mark.parametrize("payload", PAYLOADS, ids=lambda each: f"{each.number}-{each.title}")


@pytest.fixture(scope="module")
def seen_outside():
    """The result of each payload without a sandbox; run once."""
    return {}


@pytest.fixture
def without_a_sandbox(seen_outside, outside):
    def run(payload):
        if not payload.gains or payload.python > sys.version_info[:2]:
            return ""  # an error or a dead process wherever it runs
        key = payload.number, payload.title
        if key not in seen_outside:
            gained = outside(_OUTSIDE, payload.code)
            assert gained.value == "True", gained
            seen_outside[key] = "it works"
        return seen_outside[key]

    return run


@pytest.fixture
def marked(daemon, client, unharmed):
    """A job of another client has left marks wherever it could, in the worker that will run the attack."""
    mark = aftermath.new_mark()
    left = client.run(aftermath.LEAVE, entry="main", args=[mark], pool="open")
    assert left.value == mark, left
    daemon.until(lambda: at_rest(daemon))  # so that the worker used last is the first to be chosen
    return left


def submit(client, code, **options):
    """The result; a code that the client does not take is told by its error."""
    try:
        return client.run(code, **options)
    except InvalidJobError as error:
        return error


def assert_nothing_gained(seen):
    """The attack has seen nothing but its own sandbox."""
    assert seen["processes"] == [1]  # its own init, which cannot be signalled
    assert seen["parent"] == 0
    assert seen["descriptors"][:3] == [0, 1, 2]
    assert len(seen["descriptors"]) == 4  # and the channel of its own result
    assert seen["writable"] == []
    assert seen["network"] == seen["socket"] == seen["program"] == "EPERM"
    assert seen["marks"] == []
    assert {name for name in seen["environment"] if not name.endswith("_THREADS")} <= OWN_ENVIRONMENT


@each_payload
def test_with_the_screen_on(payload, client, without_a_sandbox, record):
    result = submit(client, payload.code, pool="screened")
    if isinstance(result, InvalidJobError) or payload.python > (3, 11):
        _record_unreadable(record, payload, result, screen_off=False)
        return
    assert (result.outcome is Outcome.REJECTED) == (payload.expected == "REJ"), result
    if payload.expected == "REJ":
        rules = [each.rule for each in result.findings]
        assert rules
        assert not payload.rule or payload.rule in rules
        assert (result.value, result.stdout, result.stderr) == (None, "", "")  # and nothing of it ran
        how, by, seen = "REJ", ["screen"], ", ".join(dict.fromkeys(rules))
    else:
        assert result.outcome in TYPED
        how, by, seen = "INERT", BELOW, f"{result.outcome}: {result.value!r}"
    record(
        payload.number,
        payload.title,
        how,
        stopped_by=by,
        seen=seen,
        outside=without_a_sandbox(payload),
        screen_off=False,
    )


@each_payload
def test_with_the_screen_off(payload, client, marked, without_a_sandbox, record):
    result = submit(client, aftermath.behind(payload.code), pool="open")
    if isinstance(result, InvalidJobError) or payload.python > (3, 11):
        _record_unreadable(record, payload, result, screen_off=True)
        return
    assert result.outcome in TYPED, result
    assert result.worker == marked.worker  # else it had nothing to find
    how, seen = "INERT", f"{result.outcome}: {result.error.type if result.error else result.reason}"
    if result.value is not None:
        assert_nothing_gained(result.value)
        seen = f"{result.value['gained']}, and nothing to reach with it"
    elif result.outcome is Outcome.ERROR:
        # The payload may fail; what looks around after it must not, or nothing was looked at.
        assert "in aftermath" not in result.error.traceback, result.error.traceback
        how = "ERR"
    record(payload.number, payload.title, how, stopped_by=BELOW, seen=seen, outside=without_a_sandbox(payload))


def _record_unreadable(record, payload, result, *, screen_off):
    """No text, or of a Python that the worker does not have: it never runs."""
    if isinstance(result, InvalidJobError):
        seen = result.message
    else:
        assert (result.outcome, result.error.type) == (Outcome.ERROR, "SyntaxError"), result
        seen = "SyntaxError"
    record(payload.number, payload.title, "ERR", stopped_by=["image"], seen=seen, screen_off=screen_off)


def test_what_the_aftermath_looks_for_is_found_where_nothing_holds_it(outside, tmp_path):
    tmp_path.chmod(0o777)
    mark = aftermath.new_mark()
    (tmp_path / "mark").write_text(mark)
    (tmp_path / "mark").chmod(0o644)
    code = "import os, builtins\n" + aftermath.behind(
        f"kept = [{mark!r}]\nos.environ['MARK'] = {mark!r}\n", forbidden=(str(tmp_path),), readable=(str(tmp_path),), deep=True
    )  # fmt: skip
    seen = outside("def main(code):\n    space = {}\n    exec(code, space)\n    return space['result']\n", code)
    seen = eval(seen.value)  # our own process's repr
    assert len(seen["processes"]) > 1
    assert seen["writable"] == [str(tmp_path)]
    assert seen["network"] == 111
    assert isinstance(seen["socket"], int)
    assert seen["program"] == 0
    assert seen["scanned"] > 1 << 20
    assert mark in seen["marks"]
    assert str(tmp_path / "mark") in seen["marks"]


def test_a12_no_page_of_memory_holds_anything_of_the_job_before(script, marked, record):
    result = script(aftermath.behind("import sys\nresult = sys._getframe()\n", deep=True))
    assert result.outcome == "ok", f"{result.reason}: {result.error and result.error.traceback}"
    assert result.worker == marked.worker
    assert result.value["scanned"] > 32 << 20  # the preloaded libraries are in there
    assert_nothing_gained(result.value)
    record(
        "A12", "every readable page of memory, for the job before", "INERT", stopped_by=["runner", "namespaces"],
        seen=f"{result.value['scanned'] >> 20} MiB read, no trace", outside="the mark is found",
    )  # fmt: skip
