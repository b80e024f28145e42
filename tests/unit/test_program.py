"""The text of a job, compiled for this child and for others of the same text."""

import marshal
import warnings

import pytest
from runner import interpreter, program
from runner.fault import FILENAME
from runner.program import UNSCREENED

from pool.screen import Policy

CODE = b"""
def main(x):
    "Its text."
    return [each for each in (1000, 1.5, "text", b"bytes", None, ..., frozenset({x}))]
"""


def names_of(code):
    names = {}
    exec(code, names)
    return names


def test_loaded_byte_code_is_what_was_compiled():
    made, sent = program._to_share(CODE, UNSCREENED)
    loaded = program._compiled("refused", UNSCREENED, sent)
    assert loaded == made == program._compiled(CODE.decode(), UNSCREENED)
    assert loaded.co_filename == FILENAME
    main = names_of(loaded)["main"]
    assert (main.__doc__, main.__code__.co_firstlineno) == ("Its text.", 2)
    assert list(main.__code__.co_positions()) == list(names_of(made)["main"].__code__.co_positions())


@pytest.mark.parametrize("sent", [b"", b"x", marshal.dumps("text"), b"c\x00"])
def test_a_text_is_compiled_where_its_byte_code_cannot_be_loaded(sent):
    assert names_of(program._compiled("x = 1", UNSCREENED, sent))["x"] == 1


@pytest.mark.parametrize(
    "code",
    [b"def", b"\xff", b"x = 1 is 1", b"x = '\\d'", b"x = " + b"(" * 400 + b")" * 400, b"import socket"],
    ids=["no Python", "no text", "warning", "escape", "too deep", "refused"],
)
def test_a_text_that_does_not_simply_compile_is_not_shared_and_nothing_is_printed(code, capfd):
    assert program._to_share(code, Policy(mode="standard")) == (None, b"")
    assert capfd.readouterr() == ("", "")


def test_byte_code_that_is_too_large_is_not_shared(monkeypatch):
    monkeypatch.setattr(program, "MAX_CODE_BYTES", 10)
    made, sent = program._to_share(CODE, UNSCREENED)
    assert (sent, names_of(made)["main"](1)[0]) == (b"", 1000)


def test_the_filters_of_warnings_are_as_before():
    before = (warnings.filters, list(warnings.filters), warnings.showwarning)
    program._to_share(b"x = 1 is 1", UNSCREENED)
    assert (warnings.filters, list(warnings.filters), warnings.showwarning) == before
    assert warnings.filters is before[0]


@pytest.mark.parametrize("function", [program.run, interpreter.restoring], ids=lambda each: each.__name__)
def test_functions_that_a_memory_error_passes_through_are_so_short_that_it_needs_no_memory_for_that(function):
    assert len(function.__code__.co_code) // 2 <= 256
