"""Each control of POLICY, read back from inside a running container of each engine: not what was asked for, but what is
so.

One container is started by the engine like any worker; a program in it looks and tries, and prints what it found as
JSON. There is a proof for each name in POLICY, and no control without a proof.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from pool.engines.base import Mount, WorkerSpec
from pool.engines.docker import DockerEngine
from pool.engines.lockdown import ENVIRONMENT, MASKED_PATHS, OOM_SCORE_ADJ, POLICY
from pool.engines.oci import OciEngine
from tests.support.daemons import IMAGE_DIR

from .conftest import OWNER, add_stand_in, make_spec

PROBE = (
    (Path(__file__).parent / "probe.py")
    .read_text(encoding="utf-8")
    .replace("MASKED = ()", f"MASKED = {MASKED_PATHS!r}")
)
MEMORY_BYTES = 192 << 20
TMP_BYTES = 16 << 20
TMP_INODES = 300
PROCESSES = 24
NOFILE = 200
UID = 70123


class Docker:
    """How the tests ask an engine for what a container wrote, and for what it says of it."""

    name = "docker"

    def __init__(self, request):
        self.engine, self.image = DockerEngine(), request.getfixturevalue("stand_in")
        self._sdk = request.getfixturevalue("sdk")

    def end(self, container):
        return self._sdk.wait(container.id, timeout=120)["StatusCode"], self._sdk.logs(container.id)

    def outside(self, container):
        return self._sdk.inspect_container(container.id)


class Oci:
    name, image = "oci", "stand-in"

    def __init__(self, request):
        request.getfixturevalue("oci_usable")
        self.engine = OciEngine(request.getfixturevalue("tmp_path_factory").mktemp("oci"), IMAGE_DIR)
        self.engine.facts()
        add_stand_in(self.engine)

    def end(self, container):
        return container.wait(120), container.output()

    def outside(self, container):
        return json.loads((self.engine.directory / "containers" / container.id / "config.json").read_bytes())


@pytest.fixture(scope="module", params=[Docker, Oci], ids=["docker", "oci"])
def place(request):
    """An engine; its containers are gone when the tests are."""
    place = request.param(request)
    yield place
    for found in place.engine.find(owner=OWNER):
        found.container.kill()
    place.engine.close()


@pytest.fixture(scope="module")
def seen(place, tmp_path_factory):
    """What the probe saw, and what the engine says of the same container."""
    host = tmp_path_factory.mktemp("dataset")
    (host / "prices.csv").write_text("1,2\n")
    host.chmod(0o755)
    spec = WorkerSpec(
        worker_id="probe", pool="default", owner=OWNER, instance="probe", image=place.image, runtime=None, uid=UID,
        command=(PROBE,), mounts=(Mount(source=host, target="/datasets/prices"),), memory_bytes=MEMORY_BYTES,
        cpus=0.5, processes=PROCESSES, tmp_bytes=TMP_BYTES, tmp_inodes=TMP_INODES, nofile=NOFILE,
    )  # fmt: skip
    container = place.engine.launch(spec)
    status, output = place.end(container)
    assert status == 0, output.decode()
    return SimpleNamespace(
        **json.loads(output), outside=place.outside(container), engine=place.name, spec=spec, host=host
    )


def network(seen):
    assert seen.interfaces == ["lo"]
    assert seen.routes == []
    assert [line for line in seen.resolvers if line] == ["nameserver 127.0.0.1"]
    for family in ("inet", "inet6", "netlink", "packet", "vsock", "alg", "socketpair_inet"):
        assert seen.denied[f"socket_{family}"] == "EPERM", family


def root(seen):
    assert seen.mounts["/"]["options"][0] == "ro"
    assert set(seen.writes) == {"/x", "/etc/x", "/usr/bin/x", "/opt/pool/x", "/run/pool/x", "/etc/passwd", "/etc/hosts"}
    assert set(seen.writes.values()) <= {"EROFS", "EACCES"}
    assert seen.writable == ["/dev/mqueue", "/dev/shm", "/tmp"], "places where a file can be made, if the limits allow"
    assert seen.mqueue_file == "EMFILE", "the limit on message queues is 0"


def capabilities(seen):
    for thread in seen.threads:
        assert {thread[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}


def no_new_privileges(seen):
    assert {thread["NoNewPrivs"] for thread in seen.threads} == {"1"}


def seccomp(seen):
    assert len(seen.threads) > 1, "a thread that started later is filtered too"
    assert {thread["Seccomp"] for thread in seen.threads} == {"2"}
    assert seen.denied.pop("clone3") == "ENOSYS"
    assert {name: error for name, error in seen.denied.items() if error != "EPERM"} == {}
    assert seen.unshare_user == "ok", "the zygote needs it"


def user(seen):
    assert seen.uids == [UID] * 3
    assert seen.gids == [UID] * 3
    assert seen.groups in ([], [UID])


def memory(seen):
    assert seen.memory_limit == MEMORY_BYTES
    assert seen.swap_limit == 0
    assert seen.memory_hit == "killed", "a child that takes more than the limit is killed"


def cpu(seen):
    assert seen.cpu_share < 0.8, "half a core was allowed"


def processes(seen):
    assert PROCESSES - 6 <= seen.started_threads < PROCESSES
    assert seen.thread_error == "RuntimeError"


def ulimits(seen):
    assert seen.limits == {
        "Max core file size": ["1", "1"],
        "Max locked memory": ["0", "0"],
        "Max msgqueue size": ["0", "0"],
        "Max open files": [str(NOFILE), str(NOFILE)],
        "Max pending signals": ["256", "256"],
        "Max nice priority": ["0", "0"],
        "Max realtime priority": ["0", "0"],
    }
    assert seen.open_error == "EMFILE"
    assert seen.raise_limit == "refused"


def scratch(seen):
    for place in ("/tmp", "/dev/shm"):
        mount = seen.mounts[place]
        assert mount["type"] == "tmpfs"
        assert {"noexec", "nosuid", "nodev"} <= set(mount["options"])
        found = seen.scratch[place]
        assert found["mode"] == "0o41777"
        assert 0.9 * TMP_BYTES <= found["written"] <= TMP_BYTES
        assert found["full"] == "ENOSPC"
        assert TMP_INODES - 20 <= found["files"] <= TMP_INODES
        assert found["too_many"] == "ENOSPC"
        assert found["execute"] == "EACCES"


def ipc(seen):
    assert seen.namespaces["ipc"] != str(Path("/proc/self/ns/ipc").readlink())


def hostname(seen):
    assert seen.hostname == "worker"


def logs(seen):
    if seen.engine == "oci":
        return  # test_oci_engine.py: a pipe that nobody has to read
    log = seen.outside["HostConfig"]["LogConfig"]
    assert log["Type"] == "json-file"
    assert {"max-size": "256k", "max-file": "1", "mode": "non-blocking"}.items() <= log["Config"].items()


def labels(seen):
    labels = seen.outside["annotations"] if seen.engine == "oci" else seen.outside["Config"]["Labels"]
    expected = {"pool.owner": OWNER, "pool.instance": "probe", "pool.worker": "probe", "pool.name": "default"}
    assert expected.items() <= labels.items()


def environment(seen):
    assert seen.environ == {**ENVIRONMENT, "HOSTNAME": "worker"}


def init(seen):
    assert seen.pid == 1
    assert seen.engine == "oci" or seen.outside["HostConfig"]["Init"] is False


def restart(seen):
    if seen.engine == "oci":
        return  # nothing is there that could
    assert seen.outside["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert seen.outside["RestartCount"] == 0


def mounts(seen):
    mount = seen.mounts["/datasets/prices"]
    assert mount["options"][0] == "ro"
    assert mount["propagation"] == []
    assert seen.dataset == "1,2\n"
    assert seen.dataset_write == "EROFS"
    assert (seen.host / "prices.csv").read_text() == "1,2\n"
    if seen.engine == "docker":
        (bound,) = seen.outside["HostConfig"]["Mounts"]
        assert bound["BindOptions"]["NonRecursive"] is True


def oom(seen):
    assert seen.oom_score_adj == OOM_SCORE_ADJ
    assert seen.lower_oom_score in {"EACCES", "EPERM"}


def masked(seen):
    assert len(seen.masked) > 5
    assert all(found == "empty" for found in seen.masked.values()), seen.masked
    assert {"/proc/sys", "/sys"} <= set(seen.read_only)
    assert all(seen.read_only.values()), seen.read_only


def devices(seen):
    assert set(seen.devices) <= {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}


def cgroup(seen):
    assert all(path == "/" for path in seen.cgroup_paths), seen.cgroup_paths
    assert seen.cgroup_write in {"EROFS", "EACCES"}


PROOFS = {
    proof.__name__: proof
    for proof in (
        network, root, capabilities, no_new_privileges, seccomp, user, memory, cpu, processes, ulimits, scratch, ipc,
        hostname, logs, labels, environment, init, restart, mounts, oom, masked, devices, cgroup,
    )
}  # fmt: skip


def test_every_control_has_a_proof():
    assert PROOFS.keys() == POLICY.keys()


@pytest.mark.parametrize("name", PROOFS)
def test_in_force(seen, name):
    PROOFS[name](seen)


def test_two_workers_cannot_see_each_other(place):
    secret = "open('/tmp/secret', 'w').write('x'); import time; time.sleep(600)"
    hidden = place.engine.launch(make_spec(secret, image=place.image))
    look = "import os; print(os.listdir('/tmp'), [p for p in os.listdir('/proc') if p.isdigit()])"
    looking = place.engine.launch(make_spec(look, image=place.image))
    assert place.end(looking) == (0, b"[] ['1']\n")
    hidden.kill()
