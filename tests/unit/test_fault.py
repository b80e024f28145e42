"""The report of an exception, whatever the job has made of it."""

import contextlib

import pytest
from runner import fault

from pool import wire

FILENAME = "<job>"


def told(source):
    """The fault of what the source raises, as the loop gets it."""
    scope = {"__name__": "__main__"}
    try:
        exec(compile(source, FILENAME, "exec"), scope)
    except BaseException as raised:  # noqa: BLE001 - a job may raise anything
        return wire.decode_fault(fault.encoded(raised))
    raise AssertionError("it raises nothing")


def raised_by(source):
    with contextlib.suppress(AssertionError):
        try:
            exec(compile(source, FILENAME, "exec"), {"__name__": "__main__"})
        except BaseException as raised:  # noqa: BLE001 - a job may raise anything
            return raised
    raise AssertionError("it raises nothing")


TEXT = "class M(str):\n    def __hash__(self): raise KeyboardInterrupt\n    __eq__ = __format__ = __str__ = lambda *_: 1 / 0\n"
HOSTILE = {
    "str raises": "class E(Exception):\n    def __str__(self): 1 / 0\nraise E",
    "str interrupts": "class E(Exception):\n    def __str__(self): raise KeyboardInterrupt\nraise E",
    "str exits": "import sys\nclass E(Exception):\n    def __str__(self): sys.exit(0)\nraise E",
    "str is no text": "class E(Exception):\n    def __str__(self): return 7\nraise E",
    "str is a text of its own": TEXT + "class E(Exception):\n    def __str__(self): return M('x')\nraise E",
    "module is a number": "class E(Exception): __module__ = 7\nraise E",
    "module is a list": "class E(Exception): __module__ = []\nraise E",
    "module is a text of its own": TEXT + "class E(Exception): __module__ = M('x')\nraise E",
    "name is a text of its own": TEXT + "class E(Exception): pass\nE.__qualname__ = M('E')\nraise E",
    "no attribute can be had": "class E(Exception):\n    def __getattribute__(self, name): raise KeyboardInterrupt\nraise E",
    "its traceback is a trap": "class E(Exception):\n    __traceback__ = property(lambda self: exit(0))\nraise E",
    "its cause is a trap": "class E(Exception):\n    __cause__ = property(lambda self: exit(0))\nraise E",
    "its class is a trap": "class E(Exception):\n    __class__ = property(lambda self: exit(0))\nraise E",
    "its notes are no notes": "e = ValueError()\ne.__notes__ = 7\nclass E(Exception): pass\nraise E from e",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_exception_whose_methods_raise_is_reported_with_type_and_line(name):
    found = told(HOSTILE[name])
    assert found.type == "E"
    assert f'File "{FILENAME}", line {HOSTILE[name].count(chr(10)) + 1}' in found.traceback


@pytest.mark.parametrize("most", [fault._TYPE_CHARS, fault._MESSAGE_CHARS])
def test_what_is_too_long_keeps_both_ends_and_says_how_much_is_missing(most):
    text = fault.clean("a" + "x" * 1_000_000 + "z", most)
    assert len(text) <= most
    assert (text[0], text[-1]) == ("a", "z")
    left_out = int(text.partition("... ")[2].partition(" ")[0])
    assert text.count("x") + 2 + left_out == 1_000_002


def test_a_name_of_ten_megabytes_fits_the_wire():
    found = told("class E(Exception): pass\nE.__qualname__ = 'x' * 10_000_000\nraise E('m')")
    assert (len(found.type) <= 512, found.message) == (True, "m")


def test_lone_surrogates_are_written_out():
    assert told("raise ValueError('a\\ud800b')").message == "a\\ud800b"


EXITS = {
    "raise SystemExit": 0,
    "raise SystemExit(0)": 0,
    "raise SystemExit(False)": 0,
    "raise SystemExit(3)": 3,
    "raise SystemExit(256)": 0,
    "raise SystemExit(-1)": 255,
    "raise SystemExit(0.0)": 1,
    "raise SystemExit('text')": 1,
    "raise SystemExit(1 << 5000)": 255,
    "class N(int):\n    __and__ = __lt__ = __eq__ = lambda *_: 'x'\nraise SystemExit(N(3))": 3,
    "class E(SystemExit):\n    code = property(lambda self: 1 / 0)\nraise E(4)": 4,
    "raise ValueError(3)": None,
}


@pytest.mark.parametrize("source", EXITS)
def test_an_exit_has_the_status_that_the_process_would_have_had(source):
    assert fault.exit_code(raised_by(source)) == EXITS[source]


SPEAKS_OF = {
    "import errno\nraise OSError(errno.ENOSPC, 'full')": "tmp",
    "import errno\nraise OSError(errno.EFBIG, 'large')": "tmp",
    "import errno\nraise OSError(errno.EMFILE, 'many')": "nofile",
    "import errno\nraise OSError(errno.ENOMEM, 'none left')": "memory",
    "import errno, os\nos.fork\nraise BlockingIOError(errno.EAGAIN, 'again')": "processes",  # it names fork
    "import errno\nraise BlockingIOError(errno.EAGAIN, 'nothing to read yet')": "",
    'raise RuntimeError("can\'t start new thread")': "processes",
    "raise RuntimeError('x')": "",
    "raise OSError": "",
    "raise OSError([], 'x')": "",
    "raise FileNotFoundError(2, 'x')": "",
}


def test_a_traceback_begins_with_the_jobs_first_frame_also_where_its_file_is_its_clients():
    def called_by_the_runner():
        raise KeyError("mine")

    try:
        # As execution.py calls a function that came by value.
        exec(compile("target()", fault.__file__, "exec"), {"target": called_by_the_runner})
    except KeyError as raised:
        raised.__traceback__ = raised.__traceback__.tb_next  # without this test's own frame
        lines = wire.decode_fault(fault.encoded(raised)).traceback.splitlines()
    assert lines[1].endswith("in called_by_the_runner")
    assert lines[2].strip() == 'raise KeyError("mine")'


@pytest.mark.parametrize("source", SPEAKS_OF)
def test_the_limit_that_an_error_speaks_of_is_known(source):
    assert fault.limit_of(raised_by(source)) == SPEAKS_OF[source]
