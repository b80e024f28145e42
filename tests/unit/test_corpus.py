"""How the corpus run compares: values that differ have other texts, and no difference goes without a cause."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from tests.corpus import compare
from tests.corpus.case import Case
from tests.corpus.compare import Cause
from tests.corpus.inside.canonical import canonical
from tests.corpus.poolrun import Answer
from tests.corpus.reference import Witness
from tests.corpus.seen import Seen


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, 1.0), (1, True), (0.0, -0.0), ([1], (1,)), ("a", b"a"), ({1, 2}, [1, 2]), ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.float64(1), 1.0), (np.int32(1), np.int64(1)), (np.zeros(2), np.zeros((1, 2))), (0.1 + 0.2, 0.3), (None, False),
        (Decimal("1.0"), Decimal("1.00")), (pd.Series([1]), pd.Series([1.0])), ("1", 1),
    ],
)  # fmt: skip
def test_what_differs_in_value_type_or_order_differs_in_text(first, second):
    assert canonical(first) != canonical(second)


CASE = Case(name="x.1", part="X", code="import time\nresult = time.time()")


def answer(truncated=(), **fields):
    return Answer(Seen(**({"outcome": "ok"} | fields)), "parked", truncated, 1.0, 1.0)


def witness(foreign="", **fields):
    return Witness(Seen(**({"outcome": "ok"} | fields)), foreign)


def cause(pool, plain, *again, case=CASE):
    found = compare.between(case, pool, plain, again)
    return found.cause if found else None


@pytest.mark.parametrize("field", ["value", "stdout", "stderr", "type", "message", "outcome", "exit_code"])
def test_a_difference_that_repeats_is_unexplained(field):
    same = witness(**{field: "b"})
    assert cause(answer(**{field: "a"}), same, same, same) is Cause.UNEXPLAINED


def test_a_program_that_differs_from_itself_has_that_as_its_cause():
    assert cause(answer(value="1"), witness(value="2"), witness(value="3")) is Cause.CLOCK
    addresses = [f"<x at 0x7f00000{digit}>" for digit in "123"]
    assert cause(answer(value=addresses[0]), *(witness(value=each) for each in addresses[1:])) is Cause.ADDRESS
    plain = Case(name="y", part="X", code="result = hash(object())")
    assert cause(answer(value="1"), witness(value="2"), witness(value="3"), case=plain) is Cause.ITSELF


def test_a_field_that_repeats_is_not_excused_by_another_that_does_not():
    pool, plain = answer(value="1", stdout="a"), witness(value="2", stdout="b")
    assert cause(pool, plain, witness(value="3", stdout="b")) is Cause.UNEXPLAINED


def test_limits_and_types_that_are_not_carried_are_causes():
    assert cause(answer(outcome="timeout"), witness(value="1")) is Cause.LIMIT
    assert cause(answer(stdout="a", truncated=("stdout",)), witness(stdout="ab")) is Cause.LIMIT
    both = witness(stdout="ab", value="2")
    assert cause(answer(stdout="a", value="1", truncated=("stdout",)), both, both) is Cause.UNEXPLAINED
    refused = answer(outcome="error", type="pool.errors.ValueCodecError", message="value: a generator")
    assert cause(refused, witness(foreign="builtins.generator")) is Cause.NOT_CARRIED
    assert cause(refused, witness(value="1"), witness(value="1")) is Cause.UNEXPLAINED


def test_threads_excuse_another_order_of_lines_and_nothing_else():
    case = Case(name="z", part="X", code="from threading import Thread\nThread(target=print).start()")
    swapped, other = answer(stdout="b\na\n"), answer(stdout="a\nc\n")
    plain = witness(stdout="a\nb\n")
    assert cause(swapped, plain, plain, case=case) is Cause.THREADS
    assert cause(other, plain, plain, case=case) is Cause.UNEXPLAINED
    assert cause(swapped, plain, plain) is Cause.UNEXPLAINED


def test_a_difference_that_the_preloads_alone_make_is_named_so():
    pool, plain = answer(outcome="error", type="RuntimeError"), witness(value="1")
    found = compare.between(CASE, pool, plain, [plain], witness(outcome="error", type="RuntimeError"))
    assert found.cause is Cause.PRELOADED
    assert compare.between(CASE, pool, plain, [plain], plain).cause is Cause.UNEXPLAINED


def test_two_runs_in_the_pool_may_differ_only_where_plain_ones_do():
    one, two = answer(value="1"), answer(value="2")
    assert compare.of_rounds(CASE, one, one, [witness(value="1")]) is None
    assert compare.of_rounds(CASE, one, two, [witness(value="3"), witness(value="3")]).cause is Cause.UNEXPLAINED
    assert compare.of_rounds(CASE, one, two, [witness(value="3"), witness(value="4")]).cause is Cause.CLOCK
    assert compare.of_rounds(CASE, one, two, [witness(value="3")], unsteady={"value"}).cause is Cause.CLOCK
