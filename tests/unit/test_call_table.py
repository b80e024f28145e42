"""Calls of C functions that are made without Python in between, and the same calls where that is not possible."""

import ctypes
import os
import platform
import socket

import pytest
from runner import call_table, kernel
from runner.call_table import CallTable
from runner.kernel import Step


@pytest.fixture(params=["machine code", "Python"])
def way(request, monkeypatch):
    if request.param == "Python":
        monkeypatch.setattr(call_table, "_machine_code", lambda: None)
    elif platform.machine() != "x86_64":
        pytest.skip("there is no machine code for this machine")
    return request.param


def writing(path, content):
    fd = ctypes.c_long()
    yield kernel.opening(str(path), os.O_CREAT | os.O_WRONLY, fd, 0o600)
    yield kernel.calling("write", fd, content, len(content))
    yield kernel.closing(fd)


@pytest.mark.usefixtures("way")
def test_a_call_gets_what_an_earlier_one_has_returned(tmp_path):
    made = CallTable([*writing(tmp_path / "one", b"first"), *writing(tmp_path / "two", b"second")])
    for _ in range(2):
        made.perform()
        assert (tmp_path / "one").read_bytes() == b"first"
        assert (tmp_path / "two").read_bytes() == b"second"


def test_python_is_not_called_in_between(tmp_path, monkeypatch):
    if platform.machine() != "x86_64":
        pytest.skip("there is no machine code for this machine")
    made = CallTable(writing(tmp_path / "one", b"first"))
    monkeypatch.setattr(kernel, "perform", None)
    made.perform()
    assert (tmp_path / "one").read_bytes() == b"first"


@pytest.mark.usefixtures("way")
def test_the_first_call_that_fails_is_the_last_one_and_is_named(tmp_path):
    wrong = kernel.making_directory(f"{tmp_path}/missing/inner", 0o700)
    made = CallTable([*writing(tmp_path / "one", b"first"), wrong, *writing(tmp_path / "two", b"second")])
    with pytest.raises(FileNotFoundError, match=r"^\[Errno 2\] mkdir .*/missing/inner: No such file"):
        made.perform()
    assert (tmp_path / "one").exists()
    assert not (tmp_path / "two").exists()


@pytest.mark.usefixtures("way")
def test_a_call_gets_six_arguments(tmp_path):
    (tmp_path / "from").write_bytes(b"0123456789")
    (tmp_path / "to").write_bytes(b"..........")
    source, target = ctypes.c_long(), ctypes.c_long()
    offset = (ctypes.c_longlong * 1)(4)
    CallTable(
        [
            kernel.opening(str(tmp_path / "from"), os.O_RDONLY, source),
            kernel.opening(str(tmp_path / "to"), os.O_WRONLY, target),
            Step(kernel.libc.copy_file_range, (source, offset, target, None, 3, 0), "copy_file_range"),
        ]
    ).perform()
    os.close(source.value)
    os.close(target.value)
    assert (tmp_path / "to").read_bytes() == b"456......."


@pytest.mark.usefixtures("way")
def test_steps_of_python_are_performed_by_python(tmp_path):
    called = []

    def step(number):
        called.append(number)
        return 0

    CallTable([*writing(tmp_path / "one", b"first"), Step(step, (7,), "step")]).perform()
    assert called == [7]
    assert (tmp_path / "one").read_bytes() == b"first"


@pytest.mark.usefixtures("way")
def test_a_call_that_returns_nothing_leads_to_another_place():
    """Here to an end of the loop, once the pipe is empty and closed."""
    reading, writing_end = os.pipe()
    os.write(writing_end, b"abc")
    os.close(writing_end)
    got, last = ctypes.create_string_buffer(1), ctypes.c_int(-1)
    one = Step(kernel.libc.read, (reading, got, 1), "read", label="again", if_zero="end")
    back = Step(kernel.libc.abs, (0,), "abs", if_zero="again")
    passed = kernel.setting(last, 7)
    made = CallTable([one, back, passed, kernel.setting(last, 5)._replace(label="end")])
    made.perform()
    assert (got.raw, last.value) == (b"c", 5)
    os.close(reading)
    with pytest.raises(OSError, match="read: Bad file descriptor"):
        made.perform()
    assert made.stopped_at == 0


@pytest.mark.usefixtures("way")
def test_receiving_takes_what_has_come_and_says_how_much_it_is():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        first, size = bytearray(b"nothing"), kernel.number()
        made = CallTable([call_table.receiving(ours.fileno(), first, size)])
        theirs.send(b"four")
        made.perform()
        assert (first, size.value) == (b"fouring", 4)
        theirs.send(b"a message")
        made.perform()
        assert (first, size.value, ours.recv(99)) == (b"a messa", 7, b"ge")
        theirs.close()
        made.perform()
        assert size.value == 0


def test_what_prepared_calls_write_to_lies_together():
    """After a fork each page that is written to is copied."""
    one, content, other = kernel.number(), kernel.room(b"of any length, such as this"), kernel.number()
    assert content.raw == b"of any length, such as this"
    assert ctypes.addressof(other) - ctypes.addressof(one) == 48


def test_descriptors_of_an_empty_range_need_no_call():
    assert call_table.closing_range(3, 3) == []
