"""Class B of the catalogue: a job that exhausts resources has only its own share, and a typed end.

None of these is run outside the sandbox: there they would do what they are for. What shows that they work is that they
get as far as the limit: the number of processes, bytes or descriptors that each returns.
"""

import statistics
import time

import docker
import pytest

from pool.model import Limits
from tests.docker import live
from tests.hostile.alone import ENGINE
from tests.hostile.conftest import honest
from tests.hostile.payloads.resources import ATTACKS, COMMON

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("unharmed")]

#: For attacks that end by their deadline, and for those that end by themselves, also on a busy machine.
SHORT_S, LONG_S = 1.5, 60
#: A loop that works at the same time must go on; a shared host may make it slow.
NEIGHBOUR_S = 60.0
OUTCOMES = {"ok": "INERT", "error": "ERR", "output": "ERR"}


def told(attack):
    return f"{attack.number}-{attack.title}"


@pytest.mark.parametrize("attack", ATTACKS, ids=told)
def test_it_ends_with_a_type_and_has_only_what_is_its_own(attack, client, record):
    limits = Limits(**{"wall_s": SHORT_S if "timeout" in attack.outcomes else LONG_S, **attack.limits})
    began = time.monotonic()
    result = client.run(COMMON + attack.code, entry="main", pool="open", limits=limits)
    took_s = time.monotonic() - began
    assert result.outcome in attack.outcomes, result
    if result.outcome == "ok":
        assert eval(attack.seen, {"value": result.value}), result.value
    assert took_s < limits.wall_s + 60
    assert len(result.stdout) + len(result.stderr) <= 2 << 20
    how = OUTCOMES.get(result.outcome, "KILL")
    seen = f"{result.value!r}" if result.outcome == "ok" else f"{result.outcome}: {result.reason}"
    record(attack.number, attack.title, how, stopped_by=attack.layers, seen=seen)


def test_b11_output_over_its_cap_is_counted_and_cut(script, record):
    result = script("for _ in range(64):\n    print('x' * (1 << 20))\n", limits=Limits(wall_s=60))
    assert result.outcome == "ok"
    assert result.truncated == ("stdout",)
    assert len(result.stdout) == 1 << 20
    assert result.stdout_bytes == 64 * ((1 << 20) + 1)
    record("B11", "64 MB of stdout", "INERT", stopped_by=["runner"], seen="1 MiB is kept, all of it is counted")


@pytest.mark.parametrize("code", ["result = 'x' * 70_000", "print('x' * 100_000)", "result = bytes(8 << 20)"])
def test_b12_a_large_answer_leaves_the_worker_as_it_was(code, script):
    assert script(code + "\n").outcome == "ok"


def test_b20_a_loop_in_every_process_leaves_others_their_share(client, record):
    busy = client.submit(
        "import os\nfor _ in range(4):\n    os.fork()\nwhile True: pass\n", pool="open", limits=Limits(wall_s=3)
    )
    taken = []
    while len(taken) < 20:
        began = time.monotonic()
        honest(client, "screened")
        taken.append(time.monotonic() - began)
    assert max(taken) < NEIGHBOUR_S
    assert client.result(busy, timeout=60).outcome == "timeout"
    record(
        "B20", "sixteen loops beside another worker", "KILL", stopped_by=["container", "runner"],
        seen=f"the other worker's jobs take {statistics.median(taken) * 1000:.0f} ms",
    )  # fmt: skip


def test_b38_there_is_no_swap_to_go_to(client, record):
    """By what the Engine was told: with cgroup v1 and no swap on the host nothing more can be shown."""
    container = honest(client, "open").container
    if ENGINE == "oci":
        memory, both, *_ = live.limits(live.first_process(container))
    else:
        engine = docker.from_env()
        try:
            limits = engine.api.inspect_container(container)["HostConfig"]
        finally:
            engine.close()
        memory, both = limits["Memory"], limits["MemorySwap"]
    assert both == memory > 0
    record("B38", "swap", "INERT", stopped_by=["container"], seen="memory with swap is memory without")


def test_b41_users_are_unique_so_what_is_counted_by_user_is_shared_with_nobody(daemon, record):
    users = [worker["uid"] for pool in daemon.status()["pools"] for worker in pool["workers"]]
    assert len(set(users)) == len(users) >= 2
    assert min(users) > 65535
    record(
        "B41",
        "limits that the kernel counts by user",
        "INERT",
        stopped_by=["container", "namespaces"],
        seen="a user for each worker",
    )
