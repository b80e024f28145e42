"""The inputs and the value of a job, through the real client, the real daemon and real containers."""

import asyncio
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pool.errors import InvalidJobError
from pool.model import Limits, Outcome, StartKind
from tests.fuzz.targets.values import of_every_kind
from tests.support.same import same

TEMPLATE = {
    "size": {"min": 2, "max": 2},
    "recycle": {"max_jobs": 100_000},
    "preload": {"modules": ["numpy", "pandas"]},
    "limits": {"wall_s": 30, "cpu_s": 30, "memory": "256m", "tmp": "16m", "result": "8m"},
    "max_limits": {"wall_s": 100, "memory": "512m", "result": "100m"},
    "env_allow": ["MODE"],
}
IDENTITY = "def main(x):\n    return x"
MIB = 1 << 20
pytestmark = pytest.mark.usefixtures("next_job_is_served")


# ---- values --------------------------------------------------------------------------------------------------------


def test_values_of_every_kind_go_in_and_come_out_equal_and_of_the_same_type(client):
    sent = list(of_every_kind())
    result = client.run(IDENTITY, entry="main", args=[sent])
    assert result.outcome is Outcome.OK, result
    for given, came in zip(sent, result.value, strict=True):
        assert same(given, came), (given, came)


def test_records_and_enums_come_out_as_data(client):
    code = (
        "import dataclasses, enum, typing\n"
        "@dataclasses.dataclass\n"
        "class Trade:\n    symbol: str\n    legs: list\n"
        "class Side(enum.Enum):\n    BUY = 'buy'\n"
        "class Point(typing.NamedTuple):\n    x: int\n    y: object\n"
        "result = Trade('A', [Side.BUY, Point(1, None)])\n"
    )
    assert client.run(code).value == {"symbol": "A", "legs": ["buy", {"x": 1, "y": None}]}


UNCARRIED = {
    "{'a': [1, lambda: 0]}": ("function", "value['a'][1]"),
    "[open('/dev/null')]": ("TextIOWrapper", "value[0]"),
    "type('Mine', (), {})()": ("Mine", "value"),
    "(n for n in 'ab')": ("generator", "value"),
    "ValueError('x')": ("ValueError", "value"),
    "__import__('threading').Lock()": ("lock", "value"),
    "(1, {2: __import__('sys')})": ("module", "value[1][2]"),
}


@pytest.mark.parametrize("expression", UNCARRIED)
def test_what_cannot_be_carried_ends_error_and_names_type_and_place(expression, client):
    result = client.run(f"result = {expression}")
    kind, path = UNCARRIED[expression]
    assert (result.outcome, result.error.type) == (Outcome.ERROR, "pool.errors.ValueCodecError")
    assert "cannot be carried" in result.reason
    assert kind in result.error.message
    assert path in result.error.message


BOTTOMLESS = {
    "a list in itself": ("x = []\nx.append(x)\nresult = x", "error", "contains itself"),
    "a dict in itself": ("x = {}\nx['x'] = [x]\nresult = x", "error", "contains itself"),
    "a million deep": ("x = []\nfor _ in range(10**6): x = [x]\nresult = x", "error", "nested deeper"),
    "ten million keys": ("result = dict.fromkeys(range(10**7))", "memory", ""),
    "two million keys": ("result = dict.fromkeys(range(2 * 10**6))", "output", "limits.result"),
    "ten million items": ("result = [None] * 10**7", "output", "limits.result"),
    "a column of ten million": ("import numpy as np, pandas as pd\nresult = pd.DataFrame({'x': np.zeros(10**7)})", "output", "limits.result"),
    "a range without end": ("result = range(10**18)", "error", "long ranges"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOTTOMLESS)
def test_an_endless_result_is_bounded_in_time_and_in_the_memory_of_every_process(name, client, daemon):
    code, outcome, words = BOTTOMLESS[name]
    mine, theirs = Peak("self"), Peak(daemon.process.pid)
    result = client.run(code, limits=Limits(wall_s=100))  # seconds of CPU can take many on a busy machine
    assert result.outcome == outcome, result
    assert words in result.reason + (result.error.message if result.error else "")
    assert max(mine.grown(), theirs.grown()) < 32 * MIB
    assert result.timings.total_ms < 120_000


MANY = """
import os, numpy as np
for number in range(50): open(f"{os.environ['OUTPUT_DIR']}/{number}", "w").close()
result = [np.ones(8192) * number for number in range(980)]
"""


def test_arrays_and_files_that_are_too_many_for_one_answer_are_an_error_that_says_so(client):
    result = client.run(MANY, limits=Limits(memory="512m", result="100m"))
    assert result.outcome is Outcome.ERROR, result
    assert "50 files and a value of 981 parts are too many together" in result.error.message


class Peak:
    """The most memory that a process has from now on."""

    def __init__(self, pid):
        self._process = Path(f"/proc/{pid}")
        (self._process / "clear_refs").write_text("5")
        self._before = self._read()

    def grown(self):
        return self._read() - self._before

    def _read(self):
        lines = (self._process / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_eighty_megabytes_come_out_with_at_most_three_copies_anywhere(client, daemon, sdk):
    code = "import numpy as np\ndef main():\n    return np.arange(10_000_000.0)"
    limits = Limits(memory="512m", result="100m")
    client.run(code, entry="main", limits=limits)
    mine, theirs = Peak("self"), Peak(daemon.process.pid)
    runners = [Peak(sdk.inspect_container(each["container"])["State"]["Pid"]) for each in daemon.workers()]
    began = time.monotonic()
    result = client.run(code, entry="main", limits=limits)
    took_s = time.monotonic() - began
    assert result.outcome is Outcome.OK, result
    assert (result.value.nbytes, result.value[-1], result.value.flags.writeable) == (80_000_000, 9_999_999.0, True)
    grown = [max(each.grown() for each in runners), theirs.grown(), mine.grown()]
    copies = [round(each / result.value.nbytes, 2) for each in grown]
    print(f"\n80 MB: {took_s * 1000:.0f} ms; copies in runner, daemon and client: {copies}")
    assert max(copies) < 1.3
    assert result.usage.max_rss_bytes < 80e6 + 100 * MIB


# ---- inputs --------------------------------------------------------------------------------------------------------


def test_arguments_that_fill_the_memory_of_a_job_end_it_for_its_memory(client):
    options = {"entry": "main", "limits": Limits(memory="64m")}
    results = [client.run("def main(x): return 1", args=[bytes(size << 20)], **options) for size in (40, 60, 70)]
    assert {each.outcome for each in results} == {Outcome.MEMORY}, results


def test_a_program_with_a_byte_order_mark_runs_as_its_file_would(client):
    assert client.run("\ufeff# -*- coding: utf-8 -*-\nresult = 'ü'").value == "ü"


def test_callables_of_every_kind_run_with_their_arguments(client):
    offset = 5
    assert client.run(lambda x, *, y: x + y + offset, args=[1], kwargs={"y": 2}).value == 8
    assert client.run(math.hypot, args=[3, 4]).value == 5.0
    assert client.run(Strategy(3).score, args=[np.arange(3)]).value == 9
    assert client.run(Strategy(2), args=[4]).value == 8


class Strategy:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return self.factor * x

    def score(self, prices: np.ndarray) -> int:
        return int(prices.sum()) * self.factor


async def _coroutine(x: int) -> int:
    await asyncio.sleep(0.01)
    return x + 1


def _generator() -> Iterator[int]:
    yield 1


def test_a_coroutine_is_run_to_its_end_and_a_generator_is_no_value(client):
    assert client.run(_coroutine, args=[1]).value == 2
    code = "import asyncio\nasync def main(x):\n    await asyncio.sleep(0)\n    return x + 1\nasync def each():\n    yield 1\nclass Made:\n    pass"
    assert client.run(code, entry="main", args=[1]).value == 2
    for entry, kind in (("each", "async_generator"), ("Made", "Made")):
        result = client.run(code, entry=entry)
        assert (result.outcome, kind in result.error.message) == (Outcome.ERROR, True), result
    assert "generator" in client.run(_generator).error.message


def test_stdin_files_and_environment_reach_the_job_and_files_come_back(client):
    code = (
        "import os, sys\n"
        "def main():\n"
        "    os.makedirs('out/deep')\n"
        "    open(os.path.join(os.environ['OUTPUT_DIR'], 'deep', 'report.txt'), 'w').write('done')\n"
        "    return sys.stdin.read(), open('a.csv').read(), os.environ['MODE'], sorted(os.listdir('.'))\n"
    )
    options = {"stdin": "züri\n" * 100_000, "files": {"a.csv": b"1,2", "ü b": b""}, "env": {"MODE": "x=y"}}
    result = client.run(code, entry="main", **options)
    assert result.value == ("züri\n" * 100_000, "1,2", "x=y", ["a.csv", "out", "ü b"])
    assert result.files == {"deep/report.txt": b"done"}


@pytest.mark.parametrize("name", ["HOME", "LD_PRELOAD", "PYTHONPATH", "PATH", "mode"])
def test_a_variable_that_the_pool_does_not_list_is_refused(name, client):
    with pytest.raises(InvalidJobError, match="env_allow"):
        client.run("result = 1", env={name: "x"})


def test_the_same_seed_gives_the_same_result_and_none_another(client):
    code = "import random, numpy as np\nresult = random.random(), np.random.rand(), random.sample(range(99), 5)"
    one, two, other = (client.run(code, seed=seed).value for seed in (7, 7, 8))
    assert one == two
    assert one != other
    assert client.run(code).value != client.run(code).value
    fresh = "import numpy as np\nresult = float(np.random.default_rng().random())"  # asks the kernel, as its documentation says
    assert client.run(fresh, seed=7).value != client.run(fresh, seed=7).value


# ---- cancel, timings -----------------------------------------------------------------------------------------------


def test_a_job_can_be_cancelled_in_every_state_and_more_than_once(client, daemon):
    sleep = "import time\nprint('up', flush=True)\ntime.sleep(60)"
    running = [client.submit(sleep) for _ in range(2)]
    for each in running:
        next(client.stream(each, timeout=120))
    queued = client.submit("result = 1")
    client.cancel(queued)
    client.cancel(queued)
    never_ran = client.result(queued, timeout=60)
    assert (never_ran.outcome, never_ran.worker, never_ran.attempt) == (Outcome.CANCELLED, None, 0)
    client.cancel(running[0])
    client.cancel(running[0])
    assert client.result(running[0], timeout=60).outcome is Outcome.CANCELLED
    program = "import sys\nfrom pool import Client\nwith Client(sys.argv[1]) as client: client.cancel(sys.argv[2])"
    subprocess.run([sys.executable, "-c", program, daemon.endpoint, running[1]], check=True)
    assert client.result(running[1], timeout=60).outcome is Outcome.CANCELLED
    ended = client.submit("result = 5")
    assert client.result(ended, timeout=120).value == 5
    client.cancel(ended)
    assert client.result(ended, timeout=60).value == 5


def test_the_parts_of_the_time_add_up_and_usage_is_the_kernels(client):
    code = "import time\nbegan = time.process_time()\nx = bytearray(100 << 20)\nwhile time.process_time() - began < 0.3: pass\ntime.sleep(0.2)"
    began = time.monotonic()
    result = client.run(code)
    outside_ms = (time.monotonic() - began) * 1000
    at = result.timings
    assert at.queue_ms + at.dispatch_ms + at.run_ms + at.collect_ms == pytest.approx(at.total_ms, abs=0.01)
    assert 500 <= at.run_ms <= at.total_ms <= outside_ms
    assert 0.3 <= result.usage.cpu_s < 3
    assert 100 * MIB < result.usage.max_rss_bytes < 300 * MIB
    assert (result.attempt, result.start in set(StartKind)) == (1, True)


def test_a_job_that_waits_for_another_says_so(client):
    ids = [client.submit("import time\ntime.sleep(0.3)") for _ in range(4)]
    results = [client.result(each, timeout=120) for each in ids]
    assert [each.start for each in results[2:]] == [StartKind.WARM] * 2
    assert all(each.timings.queue_ms > 100 for each in results[2:])
