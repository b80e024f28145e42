"""The isolation of a job, as users see it: a daemon with a pool for each setting, and hosts that refuse parts of it.

A host that refuses a part is a daemon whose containers get another seccomp profile (`profiled` in tests/support/faulty.py).
"""

import json
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from pool.assets import seccomp_profile
from pool.errors import PoolUnavailableError
from pool.model import Limits, Outcome
from tests.support.daemons import DaemonProcess

MIB = 1 << 20
TEMPLATE = {
    "size": {"min": 1, "max": 1},
    "recycle": {"max_jobs": 1000, "reuse_scope": "any"},
    "preload": {"modules": []},
    "limits": {"wall_s": 20, "cpu_s": 20, "memory": "128m", "tmp": "4m", "processes": 8},
}
POOLS = {
    "default": TEMPLATE,
    "plain": TEMPLATE | {"isolation": "plain"},
    "nested": TEMPLATE | {"isolation": "namespaces"},
    "open": TEMPLATE | {"allow": ["subprocess", "proc"]},
    "screened": TEMPLATE | {"screen": "standard"},
}
FULL = ("default", "nested", "open", "screened")
CONFINED = ("default", "nested")  #: without any permission


@pytest.fixture(scope="module")
def daemon():
    with DaemonProcess(POOLS, engine="docker") as running:
        running.until(lambda: all(pool["ready"] for pool in running.status()["pools"]))
        yield running


@pytest.fixture(autouse=True)
def no_pool_in_the_environment(monkeypatch):
    for name in ("POOL_CONFIG", "POOL_RUN_DIR", "POOL_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def value(client, code, **options):
    """Of a job that has to go well."""
    result = client.run(code, **options)
    assert result.outcome is Outcome.OK, (result.reason, result.error)
    return result.value


def refused(attempt):
    """A program that makes an attempt and returns the name of the error that stopped it."""
    return f"try:\n    result = ({attempt}, 'went through')[1]\nexcept OSError as error:\n    result = type(error).__name__\n"


def rows(daemon, pool):
    (worker,) = [each for each in daemon.call("doctor")["workers"] if each["pool"] == pool]
    return worker["probes"]


def probes(daemon, pool):
    """{probe: verdict} of its one worker."""
    return {row["probe"]: row["verdict"] for row in rows(daemon, pool)}


def broken(daemon, pool):
    """The probes that were not refused, with what they saw."""
    return {row["probe"]: row["seen"] for row in rows(daemon, pool) if row["verdict"] == "broken"}


# ---- what the daemon says of its workers ----


@pytest.mark.parametrize("pool", FULL)
def test_a_worker_with_every_layer_is_said_to_be_verified(daemon, pool):
    seen = daemon.pool(pool)
    assert (seen["isolation"], seen["missing"], seen["reuse_scope"]) == ("namespaces", [], "any")
    (worker,) = seen["workers"]
    assert (worker["lockdown"], worker["isolation"], worker["missing"]) == ("verified", "namespaces", [])


@pytest.mark.parametrize("pool", sorted(set(FULL) - {"open"}))
def test_with_every_layer_each_probe_was_tried_and_held(daemon, pool):
    found = probes(daemon, pool)
    assert len(found) >= 30
    assert set(found.values()) == {"held"}, found


def test_only_the_probe_of_what_the_template_allows_is_skipped(daemon):
    found = probes(daemon, "open")
    assert {name for name, verdict in found.items() if verdict != "held"} == {"run a program"}


def test_a_pool_without_namespaces_says_so_everywhere_and_serves_one_client_a_worker(daemon):
    why = "namespaces: the template's isolation is plain"
    seen = daemon.pool("plain")
    assert (seen["isolation"], seen["missing"], seen["reuse_scope"]) == ("plain", [why], "client")
    assert [each["lockdown"] for each in seen["workers"]] == ["degraded"]
    (alert,) = [each for each in daemon.status()["alerts"] if each["id"] == "isolation:plain"]
    assert why in alert["text"]
    assert {name for name, verdict in probes(daemon, "plain").items() if verdict != "held"} == {
        "scratch space past its size", "the worker's link", "signal another process", "processes past the limit",
    }  # fmt: skip


def test_the_command_prints_the_table_of_every_worker(daemon):
    shown = daemon.admin("doctor").stdout
    for pool in POOLS:
        (worker,) = [each for each in daemon.call("doctor")["workers"] if each["pool"] == pool]
        assert worker["id"] in shown
    for name in probes(daemon, "default"):
        assert name in shown
    assert "broken" not in {verdict for pool in POOLS for verdict in probes(daemon, pool).values()}


def test_nothing_but_what_was_chosen_is_complained_about(daemon):
    daemon.until(lambda: {each["id"] for each in daemon.status()["alerts"]} == {"isolation:plain"})


# ---- what a job sees ----

VIEW = """
import os
def space(place):
    found = os.statvfs(place)
    return found.f_blocks * found.f_frsize
result = {
    "files": {place: sorted(os.listdir(place)) for place in ("/tmp", "/dev/shm", "/run", "/sys", "/proc")},
    "cwd": (os.getcwd(), os.listdir(".")),
    "space": [space("/tmp"), space("/dev/shm")],
    "pids": (os.getpid(), os.getppid()),
    "environment": sorted(os.environ),
}
"""


@pytest.mark.parametrize("pool", CONFINED)
def test_a_job_finds_its_own_empty_scratch_space_and_nothing_of_the_worker(client, pool):
    client.run("open('/tmp/left', 'w'); open('/dev/shm/left', 'w'); open('left', 'w')", pool=pool)
    seen = value(client, VIEW, pool=pool)
    assert seen["files"] == {"/tmp": ["work"], "/dev/shm": [], "/run": [], "/sys": [], "/proc": ["self"]}
    place, found = seen["cwd"]
    assert place == "/tmp/work"
    assert set(found) <= {"out"}, "only the directory for what the job gives back"
    assert seen["space"] == [4 * MIB, 4 * MIB]


@pytest.mark.parametrize("pool", [*CONFINED, "open"])
def test_a_job_is_the_second_process_of_its_world_whichever_job_it_is(client, pool):
    assert [value(client, VIEW, pool=pool)["pids"] for _ in range(3)] == [(2, 0)] * 3


def test_where_the_mounts_are_the_workers_own_a_job_still_reads_no_proc(client):
    code = "import os\n" + refused("os.listdir('/proc')")
    assert value(client, code, pool="plain") == "PermissionError"


WRITE = """
import errno
def write(place, size):
    try:
        with open(place, "wb", buffering=0) as file:
            done = 0
            while done < size:
                done += file.write(bytes(min(65536, size - done)))
        return "all"
    except OSError as error:
        return errno.errorcode[error.errno]
"""


@pytest.mark.parametrize("pool", CONFINED)
def test_scratch_space_is_as_large_as_the_job_asked_for_in_all(client, pool):
    one = Limits(tmp=MIB)
    assert value(client, VIEW, pool=pool, limits=one)["space"] == [MIB, MIB]
    assert value(client, VIEW, pool=pool)["space"] == [4 * MIB, 4 * MIB], "a limit is of one job"
    halves = "result = [write('a', 600_000), write('/dev/shm/b', 600_000)]"
    assert value(client, WRITE + halves, pool=pool, limits=one) == ["all", "ENOSPC"]
    assert value(client, WRITE + halves, pool=pool) == ["all", "all"]


@pytest.mark.parametrize("count", [1, 5, 8])
def test_a_job_gets_as_many_processes_as_it_asked_for_itself_included(client, count):
    code = """
import os, signal
children = []
try:
    while len(children) < 40:
        if (child := os.fork()) == 0:
            signal.pause()
        children.append(child)
except BlockingIOError:
    pass
result = 1 + len(children)
"""
    assert value(client, code, limits=Limits(processes=count)) == count


# ---- how a job ends ----


@pytest.mark.parametrize("pool", ["default", "plain"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_job_that_signals_itself_dies_of_it(client, pool, number):
    result = client.run(f"import os\nos.kill(os.getpid(), {int(number)})\nresult = 'lives on'", pool=pool)
    assert (result.outcome, result.signal) == (Outcome.CRASH, number)
    assert number.name in result.reason


def test_a_broken_pipe_is_an_exception_as_in_python_anywhere(client):
    code = "import os\nr, w = os.pipe()\nos.close(r)\ntry: os.write(w, b'x')\nexcept BrokenPipeError: result = 'caught'"
    assert client.run(code).value == "caught"


def test_a_job_cannot_end_the_process_that_keeps_its_world(client):
    code = """
import contextlib, os, signal
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
    with contextlib.suppress(PermissionError):
        os.kill(1, number)
os.kill(os.getpid(), 0)
result = "lives on"
"""
    first = client.run(code)
    assert (first.outcome, first.value) == (Outcome.OK, "lives on")
    assert client.run("result = 1").worker == first.worker


# ---- what only some templates allow ----

# ---- what is told ----

DENIED = "import socket\nfor _ in range(3):\n    try: socket.socket()\n    except OSError: print('no')\nresult = 7\n"


@pytest.mark.parametrize("pool", ["default", "plain", "open"])
def test_a_job_that_asks_for_it_is_told_once_what_it_was_denied_and_where(client, pool):
    result = client.run(DENIED, pool=pool, explain_denials=True)
    assert (result.outcome, result.value, result.stdout) == (Outcome.OK, 7, "no\nno\nno\n")
    assert result.stderr == "denied: socket(0x2, 0x80001, 0x0) at line 3\n"
    assert client.run(DENIED, pool=pool).stderr == ""


def test_the_command_tells_denials_too(daemon, tmp_path):
    file = tmp_path / "job.py"
    file.write_text(DENIED)
    told = daemon.admin("run", str(file), "--explain-denials")
    assert (told.exit_code, told.stdout) == (0, "no\nno\nno\n7\n"), told.stderr
    assert told.stderr == "denied: socket(0x2, 0x80001, 0x0) at line 3\n"
    assert daemon.admin("run", str(file)).stderr == ""


OFFENCE = "import math\nimport socket\nprint('it ran')\n"


def test_the_command_shows_findings_with_file_and_line(daemon, tmp_path):
    file = tmp_path / "job.py"
    file.write_text(OFFENCE)
    shown = daemon.admin("run", str(file), "--pool", "screened")
    assert (shown.exit_code, shown.stdout) == (1, "")
    first, last = shown.stderr.splitlines()
    assert first.startswith(f"{file}:2:8 S101 this pool does not allow the module socket; ")
    assert last.startswith("rejected: ")
    described = json.loads(daemon.admin("run", str(file), "--pool", "screened", "--json").stdout)
    assert [each["rule"] for each in described["findings"]] == ["S101"]


# ---- hosts that refuse parts ----


def profile(*, without=(), mute=()):
    """The profile that comes with it, where some calls are refused, or answer 0 and do nothing."""
    found = json.loads(seccomp_profile())
    for rule in found["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in {*without, *mute}]
    found["syscalls"] = [rule for rule in found["syscalls"] if rule["names"]]
    if mute:
        found["syscalls"].append({"names": list(mute), "action": "SCMP_ACT_ERRNO", "errnoRet": 0})
    return json.dumps(found)


@contextmanager
def host(changed, pools):
    """A daemon on a host where containers get this profile."""
    with tempfile.TemporaryDirectory(prefix="pool.", dir="/tmp") as home:
        (Path(home) / "profile.json").write_text(changed)
        with DaemonProcess(pools, engine="profiled", home=home, wait_ready=False) as running:
            running.until(lambda: all(each["ready"] or each["breaker"]["open"] for each in running.status()["pools"]))
            yield running


def refusal(daemon, pool):
    """The error that a client gets from a pool that cannot have workers."""
    with daemon.client(timeout=120) as client, pytest.raises(PoolUnavailableError) as caught:
        client.run("result = 1", pool=pool)
    return str(caught.value)


@pytest.fixture(scope="module")
def host_without_namespaces():
    pools = {"default": TEMPLATE, "nested": TEMPLATE | {"isolation": "namespaces"}}
    with host(profile(without=["unshare"]), pools) as running:
        yield running


def test_where_namespaces_are_demanded_and_refused_no_worker_starts_and_the_remedy_is_told(host_without_namespaces):
    breaker = host_without_namespaces.pool("nested")["breaker"]
    assert breaker["open"]
    for words in (breaker["last_reason"], refusal(host_without_namespaces, "nested")):
        assert "this host refuses user and pid namespaces" in words
        assert "Operation not permitted" in words
        assert "see pool-admin doctor, or set isolation: auto" in words


def test_where_namespaces_are_refused_and_not_demanded_workers_run_without_and_say_so(host_without_namespaces):
    seen = host_without_namespaces.pool()
    assert seen["isolation"] == "plain"
    (missing,) = seen["missing"]
    assert missing.startswith("user and pid namespaces: ")
    assert [each["lockdown"] for each in seen["workers"]] == ["degraded"]
    assert not broken(host_without_namespaces, "default")
    (alert,) = [each for each in host_without_namespaces.status()["alerts"] if each["id"] == "isolation:default"]
    assert missing in alert["text"]
    assert "no worker serves two clients" in alert["text"]


def test_without_namespaces_a_worker_is_not_shared_whatever_the_template_says(host_without_namespaces):
    assert POOLS["default"]["recycle"]["reuse_scope"] == "any"
    assert host_without_namespaces.pool()["reuse_scope"] == "client"
    with host_without_namespaces.client(timeout=120) as client:
        assert client.run("result = 1").value == 1


def test_where_landlock_is_refused_a_worker_without_namespaces_says_both_and_comes_up():
    pools = {"default": TEMPLATE, "plain": TEMPLATE | {"isolation": "plain"}}
    with host(profile(without=["landlock_create_ruleset"]), pools) as running:
        assert [each.partition(":")[0] for each in running.pool()["missing"]] == ["landlock"]
        assert running.pool()["isolation"] == "namespaces"
        assert [each.partition(":")[0] for each in running.pool("plain")["missing"]] == ["landlock", "namespaces"]
        assert not broken(running, "plain")
        assert probes(running, "plain")["read of other processes"] == "skipped"
        assert {running.pool(pool)["reuse_scope"] for pool in pools} == {"client"}


def test_a_right_that_cannot_be_given_up_is_named_as_the_reason():
    with host(profile(without=["capset"]), {"default": TEMPLATE}) as running:
        running.until(lambda: running.pool()["breaker"]["open"])
        assert "PermissionError: [Errno 1] capset: Operation not permitted" in refusal(running, "default")


def test_where_only_mounts_are_refused_the_rest_is_in_force():
    with host(profile(without=["mount"]), {"default": TEMPLATE}) as running:
        seen = running.pool()
        assert (seen["isolation"], seen["reuse_scope"]) == ("partial", "client")
        (missing,) = seen["missing"]
        assert missing.startswith("mount namespace: ")
        found = probes(running, "default")
        assert {name for name, verdict in found.items() if verdict != "held"} == {
            "scratch space past its size", "the worker's link",
        }  # fmt: skip
        with running.client(timeout=120) as client:
            pids = value(client, "import os\nresult = os.getpid(), os.getppid()")
            assert pids == (2, 0)


def test_a_worker_whose_lockdown_does_not_hold_is_never_leased_and_the_reason_is_told():
    pools = {"default": TEMPLATE, "plain": TEMPLATE | {"isolation": "plain"}}
    with host(profile(mute=["seccomp"]), pools) as running:  # the second filter is loaded, and is not there
        for pool in pools:
            breaker = running.pool(pool)["breaker"]
            assert breaker["open"]
            for words in (breaker["last_reason"], refusal(running, pool)):
                assert "its lockdown does not hold: system call " in words
                assert "system call socket (socket: it went through" in words
                assert "network (" not in words, "the container's own filter holds"
            assert running.workers(pool, state="idle") == []
            running.until(lambda name=pool: running.workers(name) == [])
            assert probes(running, pool)["system call socket"] == "broken", "what it saw is kept when it is gone"
            assert (running.pool(pool)["hit_rate"], running.pool(pool)["jobs"]["ok"]) == (None, 0), "none had a job"
