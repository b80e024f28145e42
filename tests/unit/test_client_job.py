"""The options of a job: each mistake is found before anything is sent, and the error says what to do."""

import math
from pathlib import PurePath

import numpy as np
import pytest
from runner import output_files

from pool import Client, Limits, values, wire
from pool.client import job
from pool.client.options import JobOptions
from pool.errors import InvalidJobError, TooLargeError, ValueCodecError


def build(code="x = 1", **options):
    return job.build(code, options, pool="default")


class Strange:
    pass


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("code", {"code": "x = '\ud800'"}),
        ("entry", {"entry": "a b"}),
        ("entry", {"entry": "main()"}),
        ("entry", {"entry": "x" * 129}),
        ("entry", {"code": print, "entry": "main"}),
        ("args", {"args": [1]}),
        ("kwargs", {"kwargs": {"x": 1}}),
        ("files", {"files": {"": b""}}),
        ("files", {"files": {".": b""}}),
        ("files", {"files": {"..": b""}}),
        ("files", {"files": {"out": b""}}),
        ("files", {"files": {"/a": b""}}),
        ("files", {"files": {"a/../b": b""}}),
        ("files", {"files": {"a//b": b""}}),
        ("files", {"files": {"a/": b""}}),
        ("files", {"files": {"a/b": b"", "a": b""}}),
        ("files", {"files": {"out/b": b""}}),
        ("files", {"files": {"a\0b": b""}}),
        ("files", {"files": {"\ud800": b""}}),
        ("files", {"files": {"é" * 128: b""}}),
        ("files['a']", {"files": {"a": "text"}}),
        ("files", {"files": {str(each): b"" for each in range(257)}}),
        ("env", {"env": [("A", "b")]}),
        ("env", {"env": {"": "x"}}),
        ("env", {"env": {"A=B": "x"}}),
        ("env", {"env": {"A\0": "x"}}),
        ("env", {"env": {"A" * 257: "x"}}),
        ("env", {"env": {b"A": "x"}}),
        ("env['A']", {"env": {"A": 5}}),
        ("env['A']", {"env": {"A": "\0"}}),
        ("env['A']", {"env": {"A": "\ud800"}}),
        ("env['A']", {"env": {"A": "x" * 8193}}),
        ("env", {"env": {str(each): "" for each in range(65)}}),
        ("limits", {"limits": {"wall_s": 5}}),
        ("limits.wall_s", {"limits": Limits(wall_s=1e9)}),
        ("limits.memory", {"limits": Limits(memory="99999t")}),
        ("seed", {"seed": 1 << 32}),
        ("seed", {"seed": 1.0}),
        ("pool", {"pool": 0}),
        ("pool", {"pool": np.array([1, 2])}),
        ("pool", {"pool": "a\0"}),
        ("pool", {"pool": "x" * 129}),
        ("priority", {"priority": 101}),
        ("job_id", {"job_id": "a b"}),
        ("job_id", {"job_id": "newline\n"}),
        ("job_id", {"job_id": "x" * 129}),
        ("queue_timeout", {"queue_timeout": 0}),
    ],
)
def test_a_mistake_is_an_error_with_the_field_and_a_remedy(field, options):
    with pytest.raises(InvalidJobError) as caught:
        build(**options)
    assert caught.value.fields["field"] == field
    assert caught.value.message.startswith(f"{field}: ")
    assert "; " in caught.value.message


def test_none_is_the_same_as_leaving_an_option_out():
    nothing = dict.fromkeys(JobOptions.__annotations__)
    submission = build(**nothing)
    assert submission.message == wire.Submit(request=0, job_id=submission.message.job_id, watch=True)
    assert contents(submission)[2:] == [b"x = 1", b""]


def test_an_option_that_does_not_exist_is_a_type_error_that_lists_them(tmp_path):
    with Client(tmp_path / "s") as client, pytest.raises(TypeError, match="no option 'tiemout'; it has entry, args"):
        client.run("", tiemout=5)


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, "1", True])
def test_a_wait_that_is_not_a_time_span_is_refused(tmp_path, bad):
    with Client(tmp_path / "s") as client:
        for ask in (lambda: client.run("", timeout=bad), lambda: client.result("x", timeout=bad)):
            with pytest.raises(InvalidJobError, match="timeout"):
                ask()


@pytest.mark.parametrize("bad", [0, -1, math.nan, None, "1"])
def test_the_timeout_of_a_client_is_a_time_span_above_zero(bad):
    with pytest.raises(InvalidJobError, match="timeout"):
        Client("/x", timeout=bad)


def test_the_job_ids_of_other_calls_are_checked_as_well(tmp_path):
    with Client(tmp_path / "s") as client:
        for ask in (client.result, client.cancel):
            with pytest.raises(InvalidJobError, match="job_id"):
                ask("a/b")


def test_numbers_of_numpy_are_numbers():
    limits = Limits(wall_s=np.float64(2), cpu_s=np.int64(3), memory=np.int64(1 << 20), processes=np.uint8(4))
    options = {"seed": np.int64(5), "priority": np.int8(-1), "queue_timeout": np.int32(2), "limits": limits}
    submit = sent(build(**options))
    assert (submit.seed, submit.priority, submit.queue_timeout_s) == (5, -1, 2.0)
    assert submit.limits == wire.JobLimits(wall_s=2.0, cpu_s=3.0, memory=1 << 20, processes=4)


def test_text_of_numpy_is_text():
    main, default, name = np.array(["main", "default", "A"])
    submission = build(entry=main, pool=default, job_id=name, env={name: default}, files={name: b""}, stdin=default)
    submit = sent(submission)
    assert (submit.entry, submit.pool, submit.job_id, submit.env, submit.files) == (
        "main", "default", "A", {"A": "default"}, ("A",),
    )  # fmt: skip


def sent(submission):
    """As the daemon reads it."""
    return wire.decode(wire.from_client, contents(submission))[0]


def contents(submission):
    """The frames as bytes."""
    return [each if isinstance(each, bytes) else each.bytes for each in submission.frames]


def test_the_reserved_file_name_is_that_of_the_jobs_output_directory():
    assert job.OUTPUT_DIRECTORY == output_files.DIRECTORY


# ---- sizes ----


def test_code_over_the_cap_is_refused_with_both_numbers():
    build("#" * wire.MAX_CODE_BYTES)
    with pytest.raises(TooLargeError, match="1048577 bytes, 1048576 fit") as caught:
        build("#" * (wire.MAX_CODE_BYTES + 1))
    assert caught.value.fields == {"bytes": wire.MAX_CODE_BYTES + 1, "max_bytes": wire.MAX_CODE_BYTES}


def test_a_callable_with_a_large_array_in_its_closure_is_refused_and_the_error_suggests_an_argument():
    array = np.zeros(1 << 18)
    with pytest.raises(TooLargeError, match="pass what it refers to as arguments"):
        build(lambda: array + 1)


def test_a_job_over_the_cap_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr(wire, "MAX_JOB_BYTES", 1000)
    with pytest.raises(TooLargeError, match="1006 bytes, 1000 fit"):
        build(stdin=b"x" * 1, files={"a": b"x" * 1000})


def test_arguments_over_the_cap_are_refused(monkeypatch):
    monkeypatch.setattr(wire, "MAX_JOB_BYTES", 1000)
    with pytest.raises((TooLargeError, ValueCodecError), match="1000"):
        build(entry="main", args=[b"x" * 2000])


def test_an_environment_that_does_not_fit_a_header_is_too_large():
    with pytest.raises(TooLargeError, match=r"65536 fit; use fewer or shorter"):
        build(env={str(each): "x" * 8192 for each in range(10)})


# ---- arguments ----


def test_arguments_are_encoded_as_one_value():
    *_, frame = contents(build(entry="main", args=[1, (2, 3)], kwargs={"x": {"y": None}}))
    assert values.decode([frame]) == [[1, (2, 3)], {"x": {"y": None}}]


@pytest.mark.parametrize(
    ("name", "options"),
    [("args[1]", {"args": [1, Strange(), 2]}), ("kwargs['x']", {"kwargs": {"a": 1, "x": {"deep": [Strange()]}}})],
)
def test_an_argument_that_cannot_be_carried_is_named(name, options):
    with pytest.raises(ValueCodecError) as caught:
        build(entry="main", **options)
    assert caught.value.message.startswith(f"{name}: ")
    assert "Strange" in caught.value.message
    assert caught.value.fields["argument"] == name


def test_an_argument_that_is_changed_after_the_call_arrives_as_it_was():
    array, stdin = np.zeros(1 << 16), bytearray(b"before")
    submission = build(entry="main", args=[array], stdin=stdin)
    array[:] = 1
    stdin[:] = b"after!"
    _, stdin_frame, *value = contents(submission)[2:]
    assert values.decode(value)[0][0].sum() == 0
    assert stdin_frame == b"before"


def test_a_path_is_not_a_file_name():
    with pytest.raises(InvalidJobError, match="files"):
        build(files={PurePath("a"): b""})
