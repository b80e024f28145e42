"""Live workers of a real daemon, walked from the host and compared with what was intended, item by item.

What is intended is computed from the WorkerSpec and lockdown.py, and compared for equality: a mount, a device or a
right that nobody meant to be there fails here.
"""

import contextlib
import itertools
import os
import re
import stat
from pathlib import Path

import pytest

from pool.config import load
from pool.daemon.datasets import DatasetCopies
from pool.daemon.worker_spec import WorkerSpecFactory
from pool.engines.base import Mount
from pool.engines.lockdown import CPU_PERIOD_US, OOM_SCORE_ADJ
from tests.support.daemons import DaemonProcess

from . import live

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into another user's processes")

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {
    "fd": "/proc/self/fd",
    "ptmx": "pts/ptmx",
    **{f"std{n}": f"/proc/self/fd/{i}" for i, n in enumerate(("in", "out", "err"))},
}
SEPARATE = {"mnt", "pid", "net", "ipc", "uts", "cgroup"}
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


class Worker:
    """One container, the spec that it was made from, and its first process."""

    def __init__(self, sdk, container_id, spec):
        self.id, self.spec = container_id, spec
        self.found = sdk.inspect_container(container_id)
        self.pid = self.found["State"]["Pid"]
        self.root = Path(f"/proc/{self.pid}/root")

    def outer_processes(self):
        """Those in the host's user namespace: the runner and its like. A right in any other one is none here."""
        ours = live.namespaces("self")["user"]
        return [pid for pid, own in live.of_each(self.id, live.namespaces).items() if own["user"] == ours]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "prices.csv"
    path.write_text("a,b\n1,2\n")
    path.chmod(0o644)
    path.parent.chmod(0o755)
    template = {
        "size": {"min": 2, "max": 2},
        "preload": {"modules": ["numpy", "pandas"], "datasets": {"prices": str(path)}},
        "limits": {"wall_s": 600, "memory": "384m", "tmp": "48m", "processes": 24},
        "tmp_inodes": 777,
        "cpus": 0.75,
        "screen": "off",
    }
    with DaemonProcess({"default": template}, engine="docker") as running:
        yield running


@pytest.fixture(scope="module")
def workers(daemon, sdk):
    daemon.until(lambda: len(daemon.workers(state="idle")) == 2)
    template = load(daemon.home / "pool.yaml").pools["default"]
    owner = (daemon.state_dir / "owner").read_text().strip()
    found = []
    for container in sdk.containers(filters={"label": f"pool.owner={owner}"}):
        labels = container["Labels"]
        link = next(mount["Source"] for mount in container["Mounts"] if mount["Destination"] == "/run/pool")
        assert Path(link).is_relative_to(daemon.run_dir)
        uid = os.stat(f"/proc/{sdk.inspect_container(container['Id'])['State']['Pid']}").st_uid
        blueprint = WorkerSpecFactory(
            pool="default", template=template, owner=owner, instance=labels["pool.instance"], sources="",
            engine="docker", image_id="", uids=itertools.repeat(uid),
        )  # fmt: skip
        copies = DatasetCopies(daemon.state_dir / "datasets")
        pins = {name: copies.pin(path) for name, path in template.preload.datasets.items()}
        found.append(Worker(sdk, container["Id"], blueprint.spec(labels["pool.worker"], Path(link), pins)))
    assert len(found) == 2
    return found


@pytest.fixture(scope="module")
def worker(workers):
    return workers[0]


@pytest.fixture(scope="module")
def root_kind(sdk):
    return sdk.info()["Driver"].removesuffix("2")  # overlay2 is a driver for overlay


def test_the_mounts_are_those_that_were_intended_and_no_other(workers, root_kind):
    for worker in workers:
        seen = live.seen_mounts(worker.pid, live.binds(worker.spec))
        assert seen == live.intended_mounts(worker.spec, root_kind)


def test_a_mount_that_nobody_intended_would_be_seen(engine, spec, root_kind, tmp_path):
    tmp_path.chmod(0o755)
    meant = spec()
    container = engine.launch(spec(mounts=(Mount(source=tmp_path, target="/datasets/more"),)))
    seen = live.seen_mounts(container.pid(), live.binds(meant))
    assert seen.keys() - live.intended_mounts(meant, root_kind).keys() == {"/datasets/more"}


def test_every_thread_is_filtered_and_gains_nothing(worker):
    everything = [thread for threads in live.of_each(worker.id, live.threads).values() for thread in threads]
    assert len(everything) >= 4, "the runner, threads of libzmq, the zygote and a parked child"
    assert {thread["NoNewPrivs"] for thread in everything} == {"1"}
    assert {thread["Seccomp"] for thread in everything} == {"2"}
    assert min(int(thread.get("Seccomp_filters", "1")) for thread in everything) >= 1


def test_every_thread_is_the_workers_own_user_and_group(worker):
    uid = str(worker.spec.uid)
    threads = [thread for found in live.of_each(worker.id, live.threads).values() for thread in found]
    assert len(threads) >= 3, "the runner, the zygote and a parked child"
    for thread in threads:
        assert set(thread["Uid"].split()) == {uid}
        assert set(thread["Gid"].split()) == {uid}
        assert set(thread["Groups"].split()) <= {uid}


def test_no_thread_has_a_capability_that_counts_on_the_host(worker):
    outer = worker.outer_processes()
    assert worker.pid in outer
    assert {thread[name] for pid in outer for thread in live.threads(pid) for name in CAPABILITIES} == {"0" * 16}


def test_no_process_is_in_a_namespace_of_the_host_nor_of_another_worker(workers):
    host = live.namespaces("self")
    for worker in workers:
        for own in live.of_each(worker.id, live.namespaces).values():
            assert [name for name in SEPARATE if own[name] == host[name]] == []
    first, second = (
        {own[name] for own in live.of_each(worker.id, live.namespaces).values() for name in SEPARATE}
        for worker in workers
    )
    assert not first & second


@pytest.fixture
def job(daemon, workers):
    """A running job: its process on the host, and its worker."""
    if (level := daemon.pool()["isolation"]) != "namespaces":
        pytest.skip(f"this host grants a job no namespaces of its own (isolation: {level})")
    with daemon.client() as client:
        job_id = client.submit("import time\ntime.sleep(600)")
        sealed = []

        def running():
            every = [(worker, live.of_each(worker.id, live.threads)) for worker in workers]
            sealed[:] = [
                (pid, worker) for worker, found in every for pid, threads in found.items() if _is_sealed(threads)
            ]
            return sealed

        daemon.until(running)
        yield sealed[0]
        client.cancel(job_id)
        client.result(job_id)
    daemon.until(lambda: len(daemon.workers(state="idle")) == 2)  # so that the next test finds nothing of this job


def _is_sealed(threads):
    return any(thread.get("Seccomp_filters") == "2" for thread in threads)


def test_a_job_has_a_second_filter_no_capability_and_namespaces_of_its_own(job):
    pid, worker = job
    (thread,) = live.threads(pid)
    assert {thread[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    own = live.namespaces(pid)
    others = [each for other, each in live.of_each(worker.id, live.namespaces).items() if other != pid]
    assert len(others) >= 3, "the runner, the zygote and what stands between it and the job"
    assert [name for name in ("user", "mnt", "ipc") if own[name] in {other[name] for other in others}] == []
    assert live.namespaces(worker.pid)["net"] != own["net"] == live.namespaces(live.parent(pid))["net"]
    assert own["pid"] != live.namespaces(worker.pid)["pid"]
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"


LEAVES_SOCKETS = """
import os, socket, time
def main():
    pairs = [socket.socketpair(type=kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) for _ in range(20)]
    named = 0
    for one, other in pairs:
        try:
            one.bind("\\0left")
            named += 1
        except OSError:
            pass
        other.send(b"unread")
    if os.fork() == 0:
        os.setsid()
        time.sleep(60)
    return named
"""


def test_a_job_leaves_no_socket_in_the_network_that_it_shares_with_the_next_job(daemon, workers):
    """What is there is a socket of the zygote that is connected to nothing: each child puts its channel in its place."""

    def networks():
        found = {}
        for pid in [pid for worker in workers for pid in live.processes(worker.id)]:
            with contextlib.suppress(OSError):  # it has just ended
                found[live.namespaces(pid)["net"]] = len(live.unix_sockets(pid))
        for worker in workers:
            del found[live.namespaces(worker.pid)["net"]]
        return found

    daemon.until(lambda: sorted(networks().values()) == [1, 1], timeout=120)
    before = networks()
    with daemon.client() as client:
        for _ in range(4):
            assert client.run(LEAVES_SOCKETS, entry="main").value == 0
    daemon.until(lambda: networks() == before, timeout=120)


def test_a_job_sees_nothing_of_the_kernel_and_of_the_link(job):
    pid, _ = job
    root = Path(f"/proc/{pid}/root")
    assert [str(path) for place in ("sys", "run") for path in (root / place).iterdir()] == []
    assert not [path.name for path in (root / "proc").iterdir() if path.name.isdigit()]
    assert not (root / "run/pool").exists()


def test_the_devices_are_exactly_these(worker):
    found, links = {}, {}
    for path in (worker.root / "dev").iterdir():
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            links[path.name] = os.readlink(path)
        elif not stat.S_ISDIR(status.st_mode):
            assert stat.S_ISCHR(status.st_mode), path.name
            found[path.name] = (os.major(status.st_rdev), os.minor(status.st_rdev))
    assert (found, links) == (DEVICES, LINKS)
    assert {path.name for path in (worker.root / "dev").iterdir() if path.is_dir() and not path.is_symlink()} == {
        "mqueue",
        "pts",
        "shm",
    }


def test_the_cgroup_has_the_limits_that_were_asked_for(worker):
    spec = worker.spec
    quota = round(spec.cpus * CPU_PERIOD_US)
    assert live.limits(worker.pid) == (spec.memory_bytes, spec.memory_bytes, spec.processes, quota, CPU_PERIOD_US)
    assert (spec.memory_bytes, spec.cpus) == (384 << 20, 0.75)


#: What the runner compares after each job, of its own container, and by what it measures a job.
WATCHED = re.compile(
    r"/proc/\d+/(mountinfo|limits|oom_score_adj|task|fd)|/proc/sysvipc/(shm|sem|msg)"
    r"|/sys/fs/cgroup/(memory/|cpuacct/|)(memory.stat|memory.events|memory.oom_control|cpu.stat|cpuacct.usage)"
)


def test_the_runner_holds_no_descriptor_of_a_network_or_of_a_file_but_those_of_the_kernel_that_it_reads(worker):
    (zygote,) = live.children(worker.pid)  # it makes the channels, in its own network
    sockets = live.unix_sockets(worker.pid) | live.unix_sockets(zygote)
    descriptors = live.descriptors(worker.pid)
    assert len(descriptors) > 3
    for number, target in descriptors.items():
        kind, _, name = target.partition(":")
        if WATCHED.fullmatch(target):
            assert live.opened_for(worker.pid, number) in {os.O_RDONLY, os.O_PATH}, (number, target)
            continue
        assert kind in {"/dev/null", "pipe", "socket", "anon_inode"}, (number, target)
        if kind == "socket":
            assert name.strip("[]") in sockets, (number, target)


def test_no_process_is_spared_by_the_oom_killer(worker):
    scores = live.of_each(worker.id, lambda pid: int(Path(f"/proc/{pid}/oom_score_adj").read_text()))
    assert scores[worker.pid] == OOM_SCORE_ADJ
    assert min(scores.values()) == OOM_SCORE_ADJ
