"""The payloads of class A: the screen's answer to each, and that each works without a sandbox."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from pool.screen import check
from tests.hostile.payloads.screen import PAYLOADS, Payload

#: Runs stdin as a script, and ends with 0 if it left something in `result`.
OUTSIDE = (
    "import sys; code = sys.stdin.buffer.read().decode('utf-8', 'surrogatepass'); space = {'__name__': '__main__'}; "
    "exec(compile(code, '<job>', 'exec', dont_inherit=True), space); sys.exit(0 if space.get('result') else 9)"
)
NOW = [payload for payload in PAYLOADS if payload.python <= sys.version_info[:2]]


def name(payload: Payload) -> str:
    return f"{payload.number}-{payload.title}"


@pytest.mark.parametrize("payload", NOW, ids=name)
def test_the_screen_refuses_what_it_is_said_to_refuse_and_lets_the_rest_pass(payload):
    found = {each.rule for each in check(payload.code)}
    assert bool(found) == (payload.expected == "REJ")
    assert not payload.rule or payload.rule in found


@pytest.mark.parametrize("payload", [payload for payload in NOW if payload.gains], ids=name)
def test_a_payload_gains_something_where_nothing_holds_it(payload):
    if payload.needs and find_spec(payload.needs) is None:
        pytest.skip(f"{payload.needs} is not installed")
    code = payload.code.encode("utf-8", "surrogatepass")
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OUTSIDE], input=code, capture_output=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")[-500:]


def test_no_payload_is_there_twice():
    assert len({payload.code for payload in PAYLOADS}) == len(PAYLOADS)
    assert len({name(payload) for payload in PAYLOADS}) == len(PAYLOADS)
