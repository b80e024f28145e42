"""Facts that are read: of the host that runs the tests, of files made for it, and of an Engine's answers."""

import gc
import gzip
import os
import platform
import pwd
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool.doctor import TITLES, examine, gather, try_namespaces
from pool.doctor import host as facts
from pool.errors import EngineUnavailableError

VERSION = {
    "Version": "20.10.24+dfsg1",
    "ApiVersion": "1.41",
    "Components": [
        {"Name": "Engine", "Version": "20.10.24+dfsg1"},
        {"Name": "containerd", "Version": "1.6.20~ds1"},
        {"Name": "runc", "Version": "1.1.5+ds1"},
    ],
}
ANSWER = {
    "Driver": "overlay2",
    "DefaultRuntime": "runc",
    "Runtimes": {"runc": {}, "runsc": {}},
    "LiveRestoreEnabled": True,
    "SwapLimit": True,
    "RuncCommit": {"ID": "1.1.5+ds1-1+deb12u1"},
    "ContainerdCommit": {"ID": "05044ec0a9a75232cad458027ca83437aae3f4da"},
    "SecurityOptions": ["name=seccomp,profile=default", "name=rootless"],
    "Warnings": None,
}


#: The SDK forgets the socket of a connection that it gives up.
GIVES_UP = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture
def _collected() -> Iterator[None]:
    """Such sockets are collected here and not in the middle of another test."""
    yield
    gc.collect()


# ---- this host ----


def test_the_kernel_of_this_host_is_read():
    kernel = facts.read_kernel()
    assert kernel.release == platform.release()
    assert kernel.cgroups in {"v2", "hybrid", "v1", "none"}
    assert kernel.controllers or kernel.cgroups == "none"
    assert "errno" in kernel.seccomp
    assert kernel.landlock is None or kernel.landlock >= 0
    assert kernel.overcommit in {0, 1, 2}
    assert kernel.core_pattern
    assert kernel.apparmor or kernel.profiles == frozenset()
    assert kernel.namespaces is not None, "the attempt did not run"


def test_the_attempt_leaves_this_process_where_it_is():
    before = os.readlink("/proc/self/ns/user"), os.getuid()
    facts.read_kernel()
    assert (os.readlink("/proc/self/ns/user"), os.getuid()) == before


def test_the_attempt_says_what_was_refused(monkeypatch, tmp_path):
    """Namespaces that may not be made: the limit of this process tree is not ours to change, so ask for a wrong one."""
    script = Path(try_namespaces.__file__).read_text(encoding="utf-8").replace("0x10000000", "-1")
    (tmp_path / "try_namespaces.py").write_text(script, encoding="utf-8")
    monkeypatch.setattr(facts, "__file__", str(tmp_path / "kernel.py"))
    assert facts.read_kernel().namespaces == "user namespace: Invalid argument"


def test_an_attempt_that_fails_by_itself_is_not_taken_for_a_refusal(monkeypatch, tmp_path):
    (tmp_path / "try_namespaces.py").write_text("raise SystemExit(3)", encoding="utf-8")
    monkeypatch.setattr(facts, "__file__", str(tmp_path / "kernel.py"))
    assert facts.read_kernel().namespaces is None


def test_the_whole_host_is_read_and_examined(tmp_path):
    findings = examine(gather(tmp_path))
    assert [each.id for each in findings] == list(TITLES)
    assert next(each for each in findings if each.id == "run-dir").seen.startswith(str(tmp_path))


@GIVES_UP
@pytest.mark.usefixtures("_collected")
def test_a_host_without_an_engine_is_read_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    host = gather(tmp_path)
    assert host.docker is None
    assert "there is no socket" in host.silence
    assert host.socket is None
    assert host.kernel.release == platform.release()


# ---- cgroups ----


@pytest.mark.parametrize(
    ("present", "kind", "controllers"),
    [
        (["cgroup.controllers"], "v2", {"cpu", "memory"}),
        (["unified/cgroup.procs", "memory/x", "cpu/x"], "hybrid", {"memory", "cpu"}),
        (["memory/x"], "v1", {"memory"}),
        ([], "none", set()),
    ],
)
def test_the_control_groups_are_told_apart(monkeypatch, tmp_path, present, kind, controllers):
    for name in present:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("cpu memory\n")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroups").write_text(
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t4\t2\t1\ncpu\t1\t4\t1\nnet_cls\t0\t4\t1\n"
    )
    monkeypatch.setattr(facts, "CGROUPS", tmp_path)
    monkeypatch.setattr(facts, "PROC", proc)
    kernel = facts.read_kernel()
    assert (kernel.cgroups, kernel.controllers) == (kind, frozenset(controllers))
    assert kernel.yama is None  # as for everything else that is not there
    assert not kernel.swap


def test_profiles_are_read_by_name(monkeypatch, tmp_path):
    (tmp_path / "enabled").write_text("Y\n")
    (tmp_path / "profiles").write_text("docker-default (enforce)\n/usr/bin/man (with a space) (complain)\n")
    monkeypatch.setattr(facts, "APPARMOR", tmp_path / "enabled")
    monkeypatch.setattr(facts, "PROFILES", tmp_path / "profiles")
    assert facts.read_kernel().profiles == {"docker-default", "/usr/bin/man (with a space)"}
    monkeypatch.setattr(facts, "PROFILES", tmp_path / "none")
    assert facts.read_kernel().profiles is None


# ---- the Engine's answers ----


def test_an_engines_answers_become_facts():
    docker = facts.described(VERSION, ANSWER)
    assert (docker.version, docker.api, docker.runtime) == ("20.10.24+dfsg1", "1.41", "runc")
    assert docker.components == {"runc": "1.1.5+ds1-1+deb12u1", "containerd": "1.6.20~ds1"}
    assert docker.options == {"seccomp", "rootless"}
    assert docker.live_restore
    assert docker.warnings == ()


def test_an_engine_that_tells_nothing_is_described_as_far_as_it_goes():
    docker = facts.described({}, {})
    assert docker.version == "?"
    assert docker.components == {"runc": "", "containerd": ""}


@GIVES_UP
@pytest.mark.usefixtures("_collected")
@pytest.mark.parametrize("body", [b"[]", b'"text"', b"{}", b"no json"])
def test_what_is_no_engine_is_an_error_and_no_crash(monkeypatch, tmp_path, body):
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=_answer, args=(listener, body))
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        with pytest.raises(EngineUnavailableError):
            facts.read_engine()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)


def _answer(listener: socket.socket, body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(65536)
            connection.sendall(head % len(body) + body)


@pytest.mark.parametrize(
    ("environment", "where", "tls"),
    [
        ({}, "unix:///var/run/docker.sock", False),
        ({"DOCKER_HOST": "http+unix:///x.sock"}, "unix:///x.sock", False),
        ({"DOCKER_HOST": "tcp://a:2376", "DOCKER_TLS_VERIFY": "1"}, "tcp://a:2376", True),
        ({"DOCKER_HOST": "tcp://a:2375", "DOCKER_TLS_VERIFY": ""}, "tcp://a:2375", False),
    ],
)
def test_the_way_to_the_engine_is_that_of_the_sdk(monkeypatch, environment, where, tls):
    for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (facts.endpoint(), facts.tls()) == (where, tls)


# ---- files ----


def test_an_entry_tells_who_has_it_and_what_above_it_is_open(tmp_path):
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    inner.chmod(0o711)
    outer.chmod(0o777)
    found = facts.entry(inner)
    assert found is not None
    assert (found.owner, found.mode, found.loose) == (pwd.getpwuid(os.getuid()).pw_name, 0o711, (str(outer),))
    outer.chmod(0o1777)
    found = facts.entry(inner)
    assert found is not None
    assert found.loose == ()


def test_what_is_not_there_is_no_entry(tmp_path):
    assert facts.entry(tmp_path / "none") is None
    assert facts.entry(Path("nul\0")) is None


def test_the_changelog_of_a_package_names_what_it_mends(monkeypatch, tmp_path):
    (tmp_path / "runc").mkdir()
    with gzip.open(tmp_path / "runc" / "changelog.Debian.gz", "wb") as file:
        file.write(b"runc (1.1.5) security\n  * CVE-2024-21626: leaked fds (Closes: #1)\n")
    (tmp_path / "containerd").mkdir()
    (tmp_path / "containerd" / "changelog.Debian.gz").write_bytes(b"not compressed")
    monkeypatch.setattr(facts, "CHANGELOGS", tmp_path)
    assert facts.changelogs() == {"runc": {"CVE-2024-21626"}}
