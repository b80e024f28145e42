"""Sources that are made to be slow to check: each is answered, in time that grows no faster than the source."""

import time

import pytest

from pool.screen import check
from pool.screen.source import MAX_SOURCE_BYTES

GENEROUS_S = (
    30  #: of CPU time: the slowest takes less than 2 s where it was measured, what grows with the square takes minutes
)

SHAPES = {
    "assignments": "a = 1\n",
    "attributes": "x.a.b.c\n",
    "long chains": "numpy" + ".a" * 900 + "\n",
    "findings": "eval;",
    "format fields": "x = '{0.a}{1.b[c]}'\n",
    "calls of getattr": "getattr(x, 'a' + y)\n",
    "texts put together": "x = " + "+".join(["'ab'"] * 500) + "\n",
    "joins in joins": "x = " + "''.join([" * 60 + "'a'" + "])" * 60 + "\n",
    "f-strings": "f'{a}{b}{c}'\n",
    "functions": "def f(a, b=1):\n return a\n",
    "lambdas in lambdas": "lambda:" * 90 + "eval\n",
    "imports": "import numpy, random as r\n",
    "star patterns": "match a:\n case [C(x=1), *_]: b\n",
}
WHOLE = {
    "one text of brackets": "x = '{" + "a.[" * 80_000 + "'",
    "one text of braces": "x = '" + "{" * 250_000 + "'",
    "one comment of cookies": "#" + "coding" * 40_000,
    "one line of dots": "x = a" + ".b" * 120_000,
    "one tuple": "x = (" + "a," * 120_000 + ")",
    "one call": "f(" + "*a," * 80_000 + ")",
    "expression of at signs": "d.query('" + "@a " * 80_000 + "')",
    "a join of much": "x = ''.join([" + "'a'," * 60_000 + "])",
}


@pytest.mark.parametrize("shape", [*SHAPES, *WHOLE])
def test_the_largest_source_is_answered(shape):
    code = WHOLE.get(shape) or SHAPES[shape] * (MAX_SOURCE_BYTES // len(SHAPES[shape]))
    assert len(code) <= MAX_SOURCE_BYTES
    started = time.process_time()
    check(code)
    assert time.process_time() - started < GENEROUS_S


@pytest.mark.parametrize(
    "code",
    [
        "x = " + "(" * 100_000,
        "x = " + "-" * 200_000 + "1",
        "x = " + "not " * 60_000 + "1",
        "x = " + "+".join(["1"] * 100_000),
        "x = a" + "[0]" * 80_000,
        "x = a" + "()" * 100_000,
        "x = " + "lambda:" * 30_000 + "1",
        "x = " + "f'{" * 200 + "1" + "}'" * 200,
        "\n".join(" " * depth + "if 1:" for depth in range(500)),
        "if a: pass\n" + "elif b: pass\n" * 15_000,
        "@a\n" * 80_000 + "def f(): ...",
        "x = 0x" + "f" * 250_000,
        "x = " + "9" * 250_000,
        "x = " + "[" * 150 + "]" * 150,
        "x = " + "a if b else " * 20_000 + "c",
        "x: " + "a[" * 190 + "b" + "]" * 190,
    ],
)
def test_what_is_too_deep_is_a_finding_or_a_syntax_error_and_no_crash(code):
    try:
        found = check(code)
    except SyntaxError:
        return
    assert {each.rule for each in found} <= {"S502"}
