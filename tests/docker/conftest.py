"""The worker image, and a stand-in of it that runs a Python program instead of the runner."""

import contextlib
import io
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import docker
import msgspec
import pytest
from docker.errors import APIError
from docker.utils import kwargs_from_env

from pool.engines.base import ImageFacts, WorkerSpec
from pool.engines.docker import DockerEngine
from pool.engines.oci import OciEngine
from pool.images import DEFAULT_TAG, build, worker
from tests.support import daemons
from tests.support.daemons import IMAGE_DIR, DaemonProcess

#: The same file system and lockdown as a worker; the command is a program for `python3 -c`.
STAND_IN = "pool-worker-stand-in:latest"
STAND_IN_COMMAND = ("/usr/bin/python3", "-s", "-P", "-X", "utf8", "-u", "-c")
OWNER = f"test-{secrets.token_hex(4)}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test of this directory needs a Docker Engine."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="session", autouse=True)
def worker_image() -> ImageFacts:
    return daemons.worker_image()


@pytest.fixture(scope="module")
def daemon(request: pytest.FixtureRequest) -> Iterator[DaemonProcess]:
    """With the module's POOLS, or one pool of its TEMPLATE. DAEMON: its settings of the daemon."""
    of_module = vars(request.module)
    pools = of_module.get("POOLS") or {"default": of_module["TEMPLATE"]}
    with DaemonProcess(pools, engine="docker", **of_module.get("DAEMON", {})) as running:
        yield running


@pytest.fixture(scope="session")
def sdk() -> Iterator[docker.APIClient]:
    client = docker.APIClient(version="auto", timeout=120, **kwargs_from_env())
    yield client
    client.close()


@pytest.fixture(scope="session")
def stand_in(sdk: docker.APIClient) -> str:
    return make_stand_in(sdk, DEFAULT_TAG, STAND_IN)


@pytest.fixture(scope="session")
def learning_stand_in(sdk: docker.APIClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """With scikit-learn; its libraries are downloaded once, which takes a minute."""
    requirements = tmp_path_factory.mktemp("image") / "requirements.txt"
    requirements.write_text("numpy>=2,<3\nscikit-learn\n")
    tag = "pool-worker-learning:latest"
    build(tag, progress=print, requirements=requirements)
    return make_stand_in(sdk, tag, "pool-worker-learning-stand-in:latest")


def make_stand_in(sdk: docker.APIClient, base: str, tag: str) -> str:
    return with_entrypoint(sdk, base, tag, STAND_IN_COMMAND)


def with_entrypoint(sdk: docker.APIClient, base: str, tag: str, command: Sequence[str]) -> str:
    """The tag of a new image: `base` with another command.

    It has the labels of `base`, and no name until it is complete. So it is locked as a build of the worker image is:
    otherwise one that ends meanwhile in another process removes it as a nameless image of ours.
    """
    text = f"FROM {base}\nENTRYPOINT {json.dumps(command)}\n"
    with daemons.build_lock(), worker._under_way():
        earlier = {each["Id"] for each in sdk.images(tag)}
        for event in sdk.build(fileobj=io.BytesIO(text.encode()), tag=tag, decode=True, rm=True, network_mode="none"):
            assert "error" not in event, event
        for image in earlier - {each["Id"] for each in sdk.images(tag)}:
            with contextlib.suppress(APIError):  # a container has it still
                sdk.remove_image(image)
    return tag


@pytest.fixture
def engine() -> Iterator[DockerEngine]:
    """An engine whose containers are gone when the test is."""
    engine = DockerEngine()
    yield engine
    for found in engine.find(owner=OWNER):
        found.container.kill()
    engine.close()


# ---- the engine oci ----


@pytest.fixture(params=["docker", "oci"])
def each_engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine of this host."""
    if request.param == "oci":
        request.getfixturevalue("oci_usable")
    return str(request.param)


@pytest.fixture(scope="session")
def oci_usable(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where this host does not let us start containers. The host is asked with its own tools, so that an engine
    that refuses a usable host fails the tests. The worker image is unpacked here, so that no test waits for it.
    """
    if reason := _refused_by_host():
        pytest.skip(reason)
    engine = OciEngine(tmp_path_factory.mktemp("oci"), IMAGE_DIR)
    try:
        engine.facts()
        engine.image(DEFAULT_TAG)
    finally:
        engine.close()


def _refused_by_host() -> str:
    """Why no container can be started with runc here; empty if one can."""
    if os.geteuid() != 0:
        return "the tests do not run as root"
    if shutil.which("runc", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") is None:
        return "runc is not installed"
    apart = ["unshare", "--mount", "--pid", "--fork", "--ipc", "--uts", "--net", "--mount-proc", "true"]
    entered = subprocess.run(apart, check=False, capture_output=True, text=True)
    if entered.returncode != 0:
        return f"this host refuses namespaces: {entered.stderr.strip()}"
    cgroups = Path("/sys/fs/cgroup")
    unified = (cgroups / "cgroup.controllers").exists()
    try:
        for controller in ("",) if unified else ("memory", "cpu", "pids", "devices", "freezer"):
            place = cgroups / controller / OWNER
            place.mkdir()
            place.rmdir()
    except OSError as error:
        return f"this host refuses a control group: {error}"
    return ""


@pytest.fixture
def oci_engine(oci_usable: None, tmp_path: Path) -> Iterator[OciEngine]:
    """An engine whose containers are gone when the test is, with the worker image and `stand-in`."""
    del oci_usable
    engine = OciEngine(tmp_path / "oci", IMAGE_DIR)
    engine.facts()
    add_stand_in(engine)
    yield engine
    for owner in (OWNER, "somebody-else"):
        for found in engine.find(owner=owner):
            found.container.kill()
    engine.close()


def add_stand_in(engine: OciEngine) -> None:
    """Under the name `stand-in`, the worker image whose command is a program for `python3 -c`; it shares the root."""
    engine.image(DEFAULT_TAG)
    worker = engine.images.find(DEFAULT_TAG)
    assert worker is not None
    engine.images.add(
        "stand-in", msgspec.structs.replace(worker, entrypoint=STAND_IN_COMMAND, copied=False), lambda root: None
    )


@pytest.fixture
def oci_spec() -> Callable[..., WorkerSpec]:
    return lambda *program, **changes: make_spec(*program, **({"image": "stand-in"} | changes))


@pytest.fixture
def spec(stand_in: str) -> Callable[..., WorkerSpec]:
    return lambda *program, **changes: make_spec(*program, **({"image": stand_in} | changes))


def make_spec(program: str = "import time; time.sleep(600)", **changes) -> WorkerSpec:
    """A spec of a worker that runs a program; every field can be replaced."""
    fields = {
        "worker_id": f"w{secrets.token_hex(4)}",
        "pool": "default",
        "owner": OWNER,
        "instance": f"i{secrets.token_hex(4)}",
        "runtime": None,
        "uid": 70001,
        "command": (program,),
        "mounts": (),
        "memory_bytes": 256 << 20,
        "cpus": 1.0,
        "processes": 64,
        "tmp_bytes": 16 << 20,
        "tmp_inodes": 500,
        "nofile": 256,
    }
    return WorkerSpec(**(fields | changes))
