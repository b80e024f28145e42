"""The screen on random programs: it always answers, always the same, and what it passes is what compile() takes."""

import ast
import warnings

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool.screen import MAX_FINDINGS, RULES, Policy, check, examine

MODES = st.sampled_from(["strict", "standard"])
SLOW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

#: Pieces from which attacks on a screen are made.
PIECES = st.sampled_from(
    """
    eval exec open getattr __import__ __builtins__ import os from random * . .. , : ( ) [ ] { } = := @ f' ' '{0.
    __class__ .__class__ __subclasses__ def f class C lambda match case as async await yield x self 1 + - if else for in
    del global nonlocal try except* with \n \n\x20\x20 # coding:rot13 \x0c \r \0 \u202e \ud800 \uff45\uff56al _os np .f2py
    """.replace("\\n", "\n").split(" ")
)


def from_grammar() -> st.SearchStrategy[str]:
    import hypothesmith  # it reads the grammar of Python for seconds, and all processes of a run import this file

    return hypothesmith.from_grammar()


@given(st.deferred(from_grammar), MODES)
@SLOW
def test_a_program_from_the_grammar_is_answered_and_always_the_same(code, mode):
    judge(code, mode)


@given(st.lists(PIECES, max_size=30).map(" ".join), MODES)
@settings(SLOW, max_examples=500)
def test_anything_made_of_the_pieces_of_attacks_is_answered_and_always_the_same(code, mode):
    judge(code, mode)


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)), MODES)
@settings(SLOW, max_examples=500)
def test_any_text_and_any_bytes_are_answered_and_always_the_same(code, mode):
    judge(code, mode)


@given(st.lists(PIECES, max_size=30).map(" ".join))
@settings(SLOW, max_examples=300)
def test_strict_refuses_whatever_standard_refuses(code):
    try:
        standard = check(code)
    except SyntaxError:
        return
    assert bool(check(code, screen="strict")) >= bool(standard)


def judge(code: str | bytes, mode: str) -> None:
    """Check the form of an answer, and that compile() agrees with it."""
    policy = Policy(mode=mode)  # type: ignore[arg-type]
    try:
        found = check(code, screen=policy)
    except SyntaxError:
        assert not compiles(code)
        return
    assert found == check(code, screen=policy)
    assert len(found) <= MAX_FINDINGS
    assert all(each.rule in RULES and each.line >= 1 and each.column >= 1 for each in found)
    if not found:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert same(code, examine(unmarked(code), policy).program)


def compiles(code: str | bytes) -> bool:
    try:
        parsed(code)
    except SyntaxError:
        return False
    return True


def same(code: str | bytes, program: object) -> bool:
    """What would be compiled is what the text says."""
    assert isinstance(program, ast.Module)
    return ast.dump(parsed(code)) == ast.dump(program)


def parsed(code: str | bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(unmarked(code))


def unmarked(code: str | bytes) -> str:
    """As text, without the byte order mark that a file may begin with."""
    return (code.decode() if isinstance(code, bytes) else code).removeprefix("\ufeff")
