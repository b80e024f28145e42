"""What only the Docker engine does, or can refuse. test_engine_port.py has what it shares with the engine oci."""

import gc
import os
import socket
import time

import docker
import pytest

from pool.doctor.host import read_engine
from pool.engines.docker import DockerEngine
from pool.errors import EngineUnavailableError, ImageMissingError, StartError
from tests.docker import live
from tests.support.engine_proxy import EngineProxy, engine_socket, refusing

from .conftest import OWNER


def test_a_container_has_the_name_of_its_worker_and_the_pid_that_the_engine_says(engine, spec, sdk):
    wanted = spec()
    container = engine.launch(wanted)
    found = sdk.inspect_container(container.id)
    assert found["Name"] == f"/pool-{wanted.instance}-{wanted.worker_id}"
    assert container.pid() == found["State"]["Pid"]


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


def test_launching_from_a_missing_image_leaves_nothing_behind(engine, spec, sdk):
    wanted = spec(image="pool-worker:no-such-tag")
    with pytest.raises(ImageMissingError, match="pool-admin image build"):
        engine.launch(wanted)
    assert live.containers(sdk, worker=wanted.worker_id) == []


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
    assert live.containers(sdk, worker=wanted.worker_id) == []


def test_an_unknown_runtime_is_told_with_those_that_the_engine_knows(engine, spec, sdk):
    wanted = spec(runtime="no-such-runtime")
    with pytest.raises(StartError, match=r"no OCI runtime named 'no-such-runtime', only .*runc.*daemon.json") as caught:
        engine.launch(wanted)
    assert caught.value.fields == {"runtime": "no-such-runtime"}
    assert live.containers(sdk, worker=wanted.worker_id) == []


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


def test_last_words_are_bounded_and_cannot_forge_a_line_or_drive_a_terminal(engine, spec, sdk):
    program = "print('x' * 100_000); print('\\x1b[2J\\x1b]0;title\\x07 \\u202e end\\r\\nERROR: forged')"
    container = engine.launch(spec(program))
    sdk.wait(container.id, timeout=300)
    diagnosis = container.diagnose()
    assert len(diagnosis) < 4096
    assert "\x1b" not in diagnosis
    assert "\\x1b[2J" in diagnosis
    assert "\u202e" not in diagnosis
    assert all(line.startswith("    ") for line in diagnosis.splitlines()[1:])
    assert "forged" in diagnosis


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


def test_the_facts_of_the_engine_of_this_host_are_read():
    facts = read_engine()
    assert facts.runtime in facts.runtimes
    assert facts.storage
    assert set(facts.components) == {"runc", "containerd"}
