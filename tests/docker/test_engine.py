"""The Docker engine: start, find, diagnose and remove real containers."""

import gc
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest

from pool.engines.base import Mount
from pool.engines.docker import DockerEngine
from pool.errors import EngineUnavailableError, ImageMissingError, StartError
from tests.support.engine_proxy import EngineProxy, engine_socket, refusing

from .conftest import OWNER


def containers(sdk, **labels):
    filters = {"label": [f"pool.{name}={value}" for name, value in labels.items()]}
    return [found["Id"] for found in sdk.containers(all=True, filters=filters)]


def await_exit(sdk, container):
    return sdk.wait(container.id, timeout=300)["StatusCode"]


def test_the_engine_says_what_it_is(engine):
    facts = engine.facts()
    assert facts.name == "docker"
    assert facts.version[0].isdigit()
    assert facts.runtime
    assert facts.cgroups in {"v1", "v2"}


def test_an_image_shows_what_its_labels_say(engine, worker_image):
    assert engine.image("pool-worker:latest") == worker_image


def test_a_missing_image_names_the_command_that_builds_it(engine):
    with pytest.raises(ImageMissingError, match="pool-admin image build"):
        engine.image("pool-worker:no-such-tag")


def test_a_launched_container_runs_its_command_until_it_is_killed(engine, spec, sdk):
    wanted = spec()
    container = engine.launch(wanted)
    found = sdk.inspect_container(container.id)
    assert found["State"]["Running"]
    assert found["Name"] == f"/pool-{wanted.instance}-{wanted.worker_id}"
    assert container.pid() == found["State"]["Pid"]
    assert Path(f"/proc/{container.pid()}").exists()
    container.kill()
    assert containers(sdk, worker=wanted.worker_id) == []
    container.kill()  # again, and it is gone already


def test_many_threads_kill_the_same_container_and_each_returns_when_it_is_gone(engine, spec, sdk):
    container = engine.launch(spec())

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(container.kill) for _ in range(4)]:
            future.result(timeout=60)
    with pytest.raises(docker.errors.NotFound):
        sdk.inspect_container(container.id)


def test_a_removal_that_another_caller_began_and_did_not_end_is_done_again(spec, sdk, tmp_path, monkeypatch):
    in_progress = refusing(409, "removal of container is already in progress", only="/containers/")

    def at_first(call, connection):
        refused = call.method == "DELETE" and proxy.count(call.what) < 4 and in_progress(call, connection)
        return refused or "/wait" in call.what

    with EngineProxy(tmp_path / "docker.sock", engine=engine_socket()) as proxy:
        monkeypatch.setenv("DOCKER_HOST", proxy.host)
        engine = DockerEngine()
        container = engine.launch(spec())
        proxy.calls.clear()
        proxy.answer = at_first
        container.kill()
        assert [call.method for call in proxy.calls] == ["DELETE"] * 4
        engine.close()
    with pytest.raises(docker.errors.NotFound):
        sdk.inspect_container(container.id)


def test_containers_start_from_several_threads_at_once(engine, spec, sdk):
    specs = [spec(instance="together") for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        started = list(threads.map(engine.launch, specs))
        assert set(containers(sdk, owner=OWNER, instance="together")) == {container.id for container in started}
        list(threads.map(lambda container: container.kill(), started))
    assert containers(sdk, owner=OWNER, instance="together") == []


def test_launching_from_a_missing_image_leaves_nothing_behind(engine, spec, sdk):
    wanted = spec(image="pool-worker:no-such-tag")
    with pytest.raises(ImageMissingError, match="pool-admin image build"):
        engine.launch(wanted)
    assert containers(sdk, worker=wanted.worker_id) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"mounts": (Mount(source=Path("/no/such/directory"), target="/datasets/x"),)},
        {"memory_bytes": 1 << 20},
        {"tmp_bytes": -1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_refused_start_is_told_in_the_engines_words_and_leaves_nothing_behind(engine, spec, sdk, changes):
    wanted = spec(**changes)
    with pytest.raises(StartError, match="the Docker Engine refused to") as caught:
        engine.launch(wanted)
    assert len(caught.value.message) < 700
    assert containers(sdk, worker=wanted.worker_id) == []


def test_what_stays_of_a_refused_start_is_told_as_an_engine_that_did_not_answer(spec, sdk, tmp_path, monkeypatch):
    """So that the daemon asks for it again."""
    wanted, busy = spec(), refusing(500, "device is busy", only="/containers/")

    with EngineProxy(tmp_path / "docker.sock", engine=engine_socket()) as proxy:
        monkeypatch.setenv("DOCKER_HOST", proxy.host)
        engine = DockerEngine()
        proxy.answer = lambda call, peer: (call.method == "DELETE" or "/start" in call.what) and busy(call, peer)
        with pytest.raises(
            EngineUnavailableError, match=r"refused to start the container .*; .*refused to remove it: "
        ):
            engine.launch(wanted)
        proxy.answer = None
        (left,) = engine.find(owner=OWNER)
        left.container.kill()
        engine.close()
    assert containers(sdk, worker=wanted.worker_id) == []


def test_an_unknown_runtime_is_told_with_those_that_the_engine_knows(engine, spec, sdk):
    wanted = spec(runtime="no-such-runtime")
    with pytest.raises(StartError, match=r"no OCI runtime named 'no-such-runtime', only .*runc.*daemon.json") as caught:
        engine.launch(wanted)
    assert caught.value.fields == {"runtime": "no-such-runtime"}
    assert containers(sdk, worker=wanted.worker_id) == []


def test_a_worker_runs_under_the_kernel_of_its_own_that_runsc_brings(engine, spec, sdk):
    """Register it in the Engine as `runsc` with the arguments `--network=none --host-uds=open`."""
    if "runsc" not in sdk.info()["Runtimes"]:
        pytest.skip("no OCI runtime named runsc is registered in this Engine")
    container = engine.launch(spec(OWN_KERNEL, runtime="runsc", processes=32, memory_bytes=512 << 20))
    status = sdk.wait(container.id, timeout=120)["StatusCode"]
    output = sdk.logs(container.id).decode()
    assert (status, output.splitlines()[-1:]) == (0, ["45 13 refused ['lo']"]), output
    assert output.splitlines()[0] != os.uname().release


OWN_KERNEL = """
import multiprocessing, os, socket, threading
import numpy as np
array = np.arange(10).sum()
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
with multiprocessing.get_context("fork").Pool(2) as pool: total = sum(pool.map(abs, [-6, -7]))
try: open("/opt/x", "w"); written = "written"
except OSError: written = "refused"
interfaces = [name for _, name in socket.if_nameindex()]
print(os.uname().release)
print(array, total, written, interfaces)
"""


def test_a_program_that_ends_at_once_is_diagnosed_with_its_exit_code_and_last_words(engine, spec, sdk):
    container = engine.launch(spec("import sys; print('to stdout'); sys.exit('no module named x')"))
    await_exit(sdk, container)
    diagnosis = container.diagnose()
    assert "exit code 1" in diagnosis
    assert "no module named x" in diagnosis
    assert "to stdout" in diagnosis


def test_last_words_are_bounded_and_cannot_forge_a_line_or_drive_a_terminal(engine, spec, sdk):
    program = "print('x' * 100_000); print('\\x1b[2J\\x1b]0;title\\x07 \\u202e end\\r\\nERROR: forged')"
    container = engine.launch(spec(program))
    await_exit(sdk, container)
    diagnosis = container.diagnose()
    assert len(diagnosis) < 4096
    assert "\x1b" not in diagnosis
    assert "\\x1b[2J" in diagnosis
    assert "\u202e" not in diagnosis
    assert all(line.startswith("    ") for line in diagnosis.splitlines()[1:])
    assert "forged" in diagnosis


def test_a_container_over_its_memory_is_diagnosed_as_out_of_memory(engine, spec, sdk):
    container = engine.launch(spec("x = bytearray(1 << 30)", memory_bytes=64 << 20))
    assert await_exit(sdk, container) == 137
    assert "out of memory" in container.diagnose()


def test_diagnosing_a_container_that_is_gone_raises_nothing(engine, spec):
    container = engine.launch(spec())
    container.kill()
    assert container.diagnose() == "the container is gone"
    assert container.pid() is None


def test_the_containers_of_an_owner_are_found_with_their_names_and_whether_they_run(engine, spec, sdk):
    runs = engine.launch(spec(worker_id="p-1", instance="before"))
    ended = engine.launch(spec("pass", worker_id="p-2", instance="now"))
    await_exit(sdk, ended)
    theirs = engine.launch(spec(owner="somebody-else"))
    try:
        found = {(each.container.id, each.instance, each.worker_id, each.running) for each in engine.find(owner=OWNER)}
        assert found == {(runs.id, "before", "p-1", True), (ended.id, "now", "p-2", False)}
    finally:
        theirs.kill()


def test_a_container_that_was_found_can_be_killed_and_has_a_pid(engine, spec, sdk):
    launched = engine.launch(spec())
    (found,) = engine.find(owner=OWNER)
    assert found.container.pid() == launched.pid()
    found.container.kill()
    assert containers(sdk, owner=OWNER) == []
    assert engine.find(owner=OWNER) == []


def test_what_a_worker_prints_does_not_fill_the_disk_nor_stop_it(engine, spec, sdk):
    program = "for _ in range(20_000): print('x' * 1000)\nimport time\nprint('done', flush=True); time.sleep(600)"
    container = engine.launch(spec(program))
    deadline = time.monotonic() + 60
    while b"done" not in (log := sdk.logs(container.id, tail=3)):
        assert time.monotonic() < deadline, "20 MB of output stopped the program"
        time.sleep(0.2)
    assert len(log) < 10_000
    assert len(sdk.logs(container.id)) < 600_000


# ---- no engine -----------------------------------------------------------------------------------------------------


#: The SDK leaves its socket to the garbage collector when it cannot connect.
sdk_drops_its_socket = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def engine_at(monkeypatch):
    engines = []

    def make(path, **options):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        engines.append(DockerEngine(**options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
    gc.collect()


@sdk_drops_its_socket
def test_without_an_engine_the_error_says_what_to_do(engine_at, tmp_path):
    with pytest.raises(EngineUnavailableError, match="start the Docker Engine, or set DOCKER_HOST"):
        engine_at(tmp_path / "none.sock").facts()


@sdk_drops_its_socket
def test_a_socket_that_nobody_listens_on_is_told_apart(engine_at, tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    with pytest.raises(EngineUnavailableError, match="nobody listens"):
        engine_at(tmp_path / "dead.sock").facts()


@sdk_drops_its_socket
def test_an_engine_that_never_answers_is_given_up(engine_at, tmp_path, spec):
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf.sock"))
        deaf.listen()
        with pytest.raises(EngineUnavailableError, match="in time"):
            engine_at(tmp_path / "deaf.sock", timeout_s=1).launch(spec())
