"""The fuzzer that forks finds crashes, hangs and broken contracts; and each kind that `pool.values` refuses, when it does not."""

import dataclasses
import os
import re
import signal
from functools import partial
from itertools import islice

import pytest

from pool.values import collisions, dtypes
from pool.values.reader import Reader
from tests.fuzz import shape
from tests.fuzz.forked import Inputs, Page, findings, shrink
from tests.fuzz.frames import join, split
from tests.fuzz.target import Target, load
from tests.fuzz.targets import values
from tests.fuzz.watch import Watch

#: Seconds of CPU, and findings.
HANG_S, MOST = 2, 8


def ignore(*_arguments: object, **_options: object) -> None:
    """In the place of a check."""


def any_multiplier(text: str) -> None:
    if not re.fullmatch(r"[<>|][a-zA-Z][0-9]+(\[[0-9]*[a-zA-Z]*\])?", text):
        raise ValueError(text)


def by_rule(rule):
    """A mutator that makes inputs by one rule alone."""

    def mutate(data, random):
        heads = split(data)
        try:
            return join([shape.pack(rule(shape.unpack(heads[0]), random, heads[0]))])
        except Exception:  # noqa: BLE001 - a seed that is no msgpack
            return data

    return mutate


def found(rule, *, count, seeds=None, hang_s=HANG_S):
    target = dataclasses.replace(load("values"), mutate=by_rule(rule), cpu_s=2 * hang_s)
    inputs = Inputs(target, seeds or list(values.seeds()), None)
    return islice(findings(Watch(target, every=1 << 40), inputs, Page(), count=count, hang_s=hang_s), MOST)


LARGE_SETS = partial(shape.collide, large=1.0)
DEAR_SEEDS = [join(map(bytes, values.values.encode(value, max_bytes=1 << 20))) for value in values.dear_values()]

#: For each kind: the checks that are taken out, the rule that makes such inputs, and what comes of it.
KINDS = {
    "a unit of time with the multiplier 0": ([(dtypes, "check_plain", any_multiplier)], shape.scalars, 3000, "SIGFPE"),
    "keys of several types with one hash": (
        [(collisions, "check_alike", ignore), (collisions, "check_set_steps", ignore), (collisions, "check_dict_steps", ignore)],
        partial(LARGE_SETS, make=shape.colliding_int), 40, "CPU"),
    "fields that share their bytes": (
        [(dtypes, "check_fields", ignore)], partial(shape.record, large=1.0), 40, "CPU"),
    "tuples of fractions with one hash": (
        [(collisions, "check_alike", ignore), (collisions, "check_set_steps", ignore), (collisions, "check_dict_steps", ignore)],
        partial(LARGE_SETS, make=shape.colliding_tuple), 40, "CPU"),
    "many small dear objects": ([(Reader, "charge", ignore)], shape.amplify, 4, "CPU"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_found_when_its_check_is_taken_out(kind, monkeypatch):
    checks, rule, count, sign = KINDS[kind]
    for owner, name, instead in checks:
        monkeypatch.setattr(owner, name, instead)
    seeds = DEAR_SEEDS if rule is shape.amplify else None
    assert any(sign in finding.text for finding in found(rule, count=count, seeds=seeds))


def target(one) -> Target:
    return Target(
        contract="", one=one, mutate=lambda data, random: bytes([random.randrange(32)]) * 64 + b"x" * random.randrange(9),
        seeds=tuple, inputs=1, base_bytes=1 << 20, per_byte=1000,
    )  # fmt: skip


def crash(data: bytes) -> None:
    if data[:1] == b"\7":
        os.kill(os.getpid(), signal.SIGSEGV)


def hang(data: bytes) -> None:
    while data[:1] == b"\7":
        pass


def fail(data: bytes) -> None:
    assert data[:1] != b"\7", "seven"


@pytest.mark.parametrize(
    ("one", "kind", "text"), [(crash, "crash", "SIGSEGV"), (hang, "hang", "CPU"), (fail, "broke", "seven")]
)
def test_what_ends_or_stalls_the_child_is_a_finding_and_the_next_input_follows(one, kind, text):
    inputs = Inputs(target(one), [b"seed"], None)
    all_found = list(findings(Watch(inputs.target, every=1 << 40), inputs, Page(), count=100, hang_s=1))
    assert {each.kind for each in all_found} == {kind}
    assert {each.data[:1] for each in all_found} == {b"\7"}
    assert text in all_found[0].text
    if kind != "hang":
        small = shrink(inputs.target, all_found[0], hang_s=1)
        assert small.data == b"\7"
        assert text in small.text


def test_an_input_of_a_kind_that_was_not_seen_is_kept(tmp_path):
    inputs = Inputs(target(lambda data: f"kind {len(data)}"), [b"seed"], tmp_path)
    assert list(findings(Watch(inputs.target, every=1 << 40), inputs, Page(), count=200)) == []
    assert len(list(tmp_path.iterdir())) == 9
