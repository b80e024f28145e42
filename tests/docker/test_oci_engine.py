"""What only the engine oci does, with real runc. test_engine_port.py has what it shares with the Docker engine."""

import contextlib
import fcntl
import os
import resource
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from pool.engines import oci, oci_container, runc
from pool.engines.base import Mount
from pool.engines.oci_container import CGROUP, OUTPUT_BYTES
from pool.engines.roots import Image, Roots
from pool.errors import EngineError, EngineUnavailableError, StartError
from pool.images import direct
from tests.docker import live
from tests.support.waiting import Waiting

from .conftest import OWNER

WAIT_S = 60
MANY_DESCRIPTORS = 1024


def test_an_image_of_the_docker_engine_is_unpacked(oci_engine):
    root = oci_engine.images.root("pool-worker").path
    assert (root / "opt/pool/runner/main.py").is_file()


def test_a_daemon_with_a_thousand_descriptors_ends_and_removes_a_container(oci_engine, oci_spec):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < MANY_DESCRIPTORS:
        pytest.skip("this process may not have so many descriptors")
    with contextlib.ExitStack() as held, pytest.MonkeyPatch.context() as changed:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        opened = oci_container.os.pidfd_open
        changed.setattr(oci_container.os, "pidfd_open", lambda pid: _moved(opened(pid)))
        container = oci_engine.launch(oci_spec())
        container.kill()
    assert live.places(oci_engine) == set()


def _moved(descriptor):
    """The same with a number that select() does not take."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, MANY_DESCRIPTORS)
    os.close(descriptor)
    return moved


def test_a_frozen_container_is_found_as_not_running_and_can_be_killed(oci_engine, oci_spec):
    container = oci_engine.launch(oci_spec())
    state = ["runc", "--root", str(oci_engine.directory / "state")]
    subprocess.run([*state, "pause", container.id], check=True)
    assert [each.running for each in oci_engine.find(owner=OWNER)] == [False]
    container.kill()
    assert live.places(oci_engine) == set()


def test_a_container_that_is_killed_is_removed_without_a_call_of_runc(oci_engine, oci_spec, monkeypatch):
    monkeypatch.setattr(oci_container, "END_TIMEOUT_S", WAIT_S)
    container = oci_engine.launch(oci_spec())
    assert any(runc.CGROUPS.glob(f"*{CGROUP}/{container.id}"))
    monkeypatch.setattr(runc.subprocess, "run", lambda *_, **__: pytest.fail("runc was called"))
    container.kill()
    assert live.places(oci_engine) == set()
    assert not any(runc.CGROUPS.glob(f"*{CGROUP}/{container.id}"))


def test_a_cgroup_that_still_has_a_process_is_not_taken_for_removed(oci_engine, oci_spec):
    container = oci_engine.launch(oci_spec())
    assert not runc.Runc(oci_engine.directory / "state").forget(container.id, f"{CGROUP}/{container.id}")
    assert [each.running for each in oci_engine.find(owner=OWNER)] == [True]
    container.kill()
    assert live.places(oci_engine) == set()


def test_a_start_that_goes_on_after_its_daemon_is_waited_for(oci_engine, oci_spec, monkeypatch):
    """As if the daemon had been killed while runc worked: somebody else holds the lock for a while."""
    monkeypatch.setattr(oci, "BEGUN_TIMEOUT_S", WAIT_S)
    waits = threading.Event()
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda pause_s: waits.set() or time.sleep(pause_s))
    monkeypatch.setattr(oci, "time", clock)
    container = oci_engine.launch(oci_spec())
    with (oci_engine.directory / "containers" / container.id / "config.json").open("rb") as config:
        fcntl.flock(config, fcntl.LOCK_SH)
        finding = Waiting(oci_engine.find, owner=OWNER)
        assert waits.wait(WAIT_S)
    assert len(finding.end()) == 1


def test_output_that_nobody_reads_neither_blocks_the_program_nor_fills_the_disk(oci_engine, oci_spec):
    program = """
import os
refused = 0
for _ in range(2000):
    try:
        os.write(1, b"x" * 1000)
    except BlockingIOError:
        refused += 1
raise SystemExit(7 if refused > 1000 else 8)
"""
    container = oci_engine.launch(oci_spec(program))
    assert container.wait(WAIT_S) == 7
    assert len(container.output()) <= OUTPUT_BYTES
    assert len(container.diagnose()) < 4096


def test_a_broken_root_is_told_and_leaves_nothing_behind(oci_engine, oci_spec):
    broken = msgspec.structs.replace(oci_engine.images.find("stand-in"), id=f"sha256:{os.urandom(32).hex()}")
    oci_engine.images.add("broken", broken, lambda root: (root / "usr").mkdir())
    with pytest.raises(StartError, match=r"/usr/bin/python3.*no such file"):
        oci_engine.launch(oci_spec(image="broken"))
    assert live.places(oci_engine) == set()


def test_what_stays_of_a_start_that_failed_is_told_as_an_engine_that_did_not_answer(oci_engine, oci_spec, monkeypatch):
    """So that the daemon asks for it again."""
    with monkeypatch.context() as changed:
        changed.setattr(runc.Runc, "delete", lambda *_, **__: (_ for _ in ()).throw(runc.RuncError("device is busy")))
        with pytest.raises(EngineUnavailableError, match=r"no such file.*; the container stays: device is busy"):
            oci_engine.launch(oci_spec(mounts=(Mount(source=Path("/no/such/directory"), target="/datasets/x"),)))
    (left,) = oci_engine.find(owner=OWNER)
    left.container.kill()
    assert live.places(oci_engine) == set()


@pytest.fixture
def build_roots(oci_engine):
    """On the file system of the images, so that files can be linked."""
    with tempfile.TemporaryDirectory(prefix="build-", dir=oci_engine.images.directory.parent) as directory:
        yield Roots(Path(directory))


def test_an_image_is_built_without_a_docker_engine(oci_engine, oci_spec, build_roots, monkeypatch):
    """The steps, with the worker image in place of the base and of the libraries, whose download takes minutes."""
    worker = oci_engine.images.root("pool-worker").path

    def copy(root, *_, **__):
        shutil.copytree(worker, root, symlinks=True, dirs_exist_ok=True, copy_function=direct.link)

    def libraries(roots, *_, **__):
        roots.add("libraries", Image(id=f"sha256:{'1' * 64}", entrypoint=()), copy)
        shutil.rmtree(roots.root("libraries").path / "opt/pool", ignore_errors=True)
        return "libraries"

    monkeypatch.setattr(direct, "bootstrap", copy)
    monkeypatch.setattr(direct, "_libraries", libraries)
    lines = []
    built = direct.build("built:1", roots=build_roots, progress=lines.append)
    known = oci_engine.image("pool-worker")
    assert (built.runner, built.sources) == (known.runner, known.sources)
    found = build_roots.root("built:1")
    assert found.entrypoint == oci_engine.images.root("pool-worker").entrypoint
    assert _files(found.path / "opt") == _files(worker / "opt")
    container = oci.OciEngine(oci_engine.directory, build_roots.directory).launch(
        oci_spec(image="built:1", command=("--help",))
    )
    assert container.wait(WAIT_S) == 0
    assert "--link" in container.output().decode()
    container.kill()
    assert direct.build("built:1", roots=build_roots, progress=lines.append) == built
    assert lines[-1] == "worker: built:1, up to date"
    base = next(root for root in (build_roots.directory / "roots").iterdir() if (root / "rootfs").exists())
    with pytest.raises(EngineError, match=r"exit code 1: .*no way"):
        direct.run_step(base, ["python3", "-c", "raise SystemExit('no way')"], {})


def _files(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_another_runtime_is_refused_with_what_to_do(oci_engine, oci_spec):
    with pytest.raises(StartError, match="runtime runc only, and not 'runsc'; set `runtime: null`"):
        oci_engine.launch(oci_spec(runtime="runsc"))
    assert oci_engine.launch(oci_spec(runtime="runc")).pid()


def test_without_runc_without_root_or_without_cgroups_it_says_what_to_do(oci_engine, monkeypatch, tmp_path):
    with monkeypatch.context() as changed:
        changed.setattr(runc, "PROGRAM", "no-such-program")
        with pytest.raises(EngineUnavailableError, match=r"runc is not installed.*apt-get install runc"):
            oci.OciEngine(tmp_path, tmp_path).facts()
    with monkeypatch.context() as changed:
        changed.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(EngineUnavailableError, match="needs root"):
            oci_engine.facts()
    (tmp_path / "file").write_text("")
    with monkeypatch.context() as changed:
        changed.setattr(runc, "CGROUPS", tmp_path / "file")
        with pytest.raises(EngineUnavailableError, match=r"cannot be made: Not a directory.*writable"):
            oci_engine.facts()


def test_a_shared_root_is_not_changed_by_a_container_nor_by_what_is_mounted_in_it(oci_engine, oci_spec, tmp_path):
    (tmp_path / "prices.csv").write_text("1,2\n")
    tmp_path.chmod(0o755)
    root = oci_engine.images.root("stand-in").path
    before = sorted(str(path) for path in root.rglob("*"))
    mounts = (Mount(source=tmp_path / "prices.csv", target="/datasets/prices.csv"),)
    program = "print(open('/datasets/prices.csv').read()); open('/datasets/other', 'w')"
    container = oci_engine.launch(replace(oci_spec(program), mounts=mounts))
    assert container.wait(WAIT_S) == 1
    words = container.output().decode()
    assert "1,2" in words
    assert "PermissionError" in words or "Read-only" in words
    assert sorted(str(path) for path in root.rglob("*")) == before
