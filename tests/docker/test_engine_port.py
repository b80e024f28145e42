"""What both engines do in the same way: start, find, diagnose and remove real containers."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from pool.engines.base import Mount
from pool.engines.docker import DockerEngine
from pool.engines.oci import OciEngine
from pool.errors import ImageMissingError, StartError
from tests.docker import live

from .conftest import OWNER

WAIT_S = 300
NOWHERE = Mount(source=Path("/no/such/directory"), target="/datasets/x")


@pytest.fixture
def docker_port(engine, spec, sdk):
    return SimpleNamespace(
        engine=engine,
        spec=spec,
        another=DockerEngine,
        exit_code=lambda container: sdk.wait(container.id, timeout=WAIT_S)["StatusCode"],
        left=lambda: live.containers(sdk, owner=OWNER),
        runtimes=sdk.info()["Runtimes"],
        refuses="the Docker Engine refused to",
    )


@pytest.fixture
def oci_port(oci_engine, oci_spec):
    return SimpleNamespace(
        engine=oci_engine,
        spec=oci_spec,
        another=lambda: OciEngine(oci_engine.directory, oci_engine.images.directory),
        exit_code=lambda container: container.wait(WAIT_S),
        left=lambda: live.places(oci_engine),
        runtimes=["runc"],
        refuses=r"runc refused to start worker w\w+: ",
    )


@pytest.fixture(params=["docker", "oci"])
def port(request):
    """An engine, how its containers are asked for their end, and what is left of them all."""
    return request.getfixturevalue(f"{request.param}_port")


def test_an_engine_says_what_it_is(port):
    facts = port.engine.facts()
    assert (facts.name, facts.isolates) == (port.engine.name, True)
    assert facts.runtime in port.runtimes
    assert facts.version[0].isdigit()
    assert facts.cgroups in {"v1", "v2"}


def test_an_image_shows_what_its_labels_say(port, worker_image):
    assert port.engine.image("pool-worker:latest") == worker_image


def test_a_missing_image_names_the_command_that_makes_it(port):
    with pytest.raises(ImageMissingError, match="pool-admin image build"):
        port.engine.image("pool-worker:no-such-tag")


def test_a_launched_container_runs_until_it_is_killed_by_several_at_once_and_leaves_nothing(port):
    container = port.engine.launch(port.spec())
    assert container.diagnose() == "the container is running"
    assert Path(f"/proc/{container.pid()}").exists()
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(container.kill) for _ in range(4)]:
            done.result(timeout=60)
    assert not port.left()


def test_a_container_that_is_gone_can_be_killed_again_and_has_no_pid(port):
    container = port.engine.launch(port.spec())
    container.kill()
    container.kill()
    assert (container.diagnose(), container.pid()) == ("the container is gone", None)


def test_containers_start_from_several_threads_at_once(port):
    with ThreadPoolExecutor(4) as threads:
        started = list(threads.map(port.engine.launch, [port.spec() for _ in range(4)]))
        assert {each.container.id for each in port.engine.find(owner=OWNER)} == {each.id for each in started}
        list(threads.map(lambda container: container.kill(), started))
    assert not port.left()


def test_another_engine_finds_what_this_one_has_started_for_an_owner_and_can_kill_it(port):
    runs = port.engine.launch(port.spec(worker_id="p-1", instance="before"))
    ended = port.engine.launch(port.spec("pass", worker_id="p-2", instance="now"))
    port.exit_code(ended)
    theirs = port.engine.launch(port.spec(owner="somebody-else"))
    later = port.another()
    found = {each.worker_id: each for each in later.find(owner=OWNER)}
    theirs.kill()
    assert {name: (each.container.id, each.instance, each.running) for name, each in found.items()} == {
        "p-1": (runs.id, "before", True),
        "p-2": (ended.id, "now", False),
    }
    assert found["p-1"].container.pid() == runs.pid()
    for each in found.values():
        each.container.kill()
    assert later.find(owner=OWNER) == []
    assert not port.left()
    later.close()


@pytest.mark.parametrize(
    "changes", [{"mounts": (NOWHERE,)}, {"tmp_bytes": -1}], ids=lambda changes: next(iter(changes))
)
def test_a_refused_start_is_told_in_the_engines_words_and_leaves_nothing_behind(port, changes):
    with pytest.raises(StartError, match=port.refuses) as caught:
        port.engine.launch(port.spec(**changes))
    assert len(caught.value.message) < 700
    assert not port.left()


def test_a_program_that_ends_at_once_is_diagnosed_with_its_exit_code_and_last_words(port):
    program = "import sys; print('\\x1b[2J to stdout', flush=True); sys.exit('no module named x')"
    container = port.engine.launch(port.spec(program))
    assert port.exit_code(container) == 1
    ending, *words = container.diagnose().splitlines()
    assert ending == "the container ended with exit code 1"
    assert sorted(words) == ["    \\x1b[2J to stdout", "    no module named x"]


def test_a_container_over_its_memory_is_diagnosed_as_out_of_memory(port):
    container = port.engine.launch(port.spec("x = bytearray(1 << 30)", memory_bytes=64 << 20))
    assert port.exit_code(container) == 137
    assert container.diagnose() == "the container ended with exit code 137, out of memory"
