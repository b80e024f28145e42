"""The pool as its users see it: a real daemon, real containers, the real client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from pool.client import PoolExecutor
from pool.errors import JobFailedError, UnknownJobError
from pool.model import Limits, Outcome
from tests.support.daemons import DaemonProcess
from tests.support.process import python

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("worker_image")]

TEMPLATE = {
    "size": {"min": 2, "max": 3},
    "recycle": {"max_jobs": 1000},
    "preload": {"modules": ["numpy", "pandas"]},
    "limits": {"wall_s": 30, "cpu_s": 30, "memory": "512m"},
}


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "prices.npy"
    np.save(path, np.linspace(1.0, 2.0, 1000))
    path.chmod(0o644)
    path.parent.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def daemon(worker_image, prices):
    del worker_image
    pools = {
        "default": TEMPLATE | {"preload": {"modules": ["numpy", "pandas"], "datasets": {"prices": str(prices)}}},
        "single": TEMPLATE | {"recycle": {"max_jobs": 1}},
        "triple": TEMPLATE | {"recycle": {"max_jobs": 3}, "size": {"min": 1, "max": 2}},
    }
    with DaemonProcess(pools, engine="docker") as running:
        yield running


def containers(sdk, daemon, **labels):
    owner = (daemon.state_dir / "owner").read_text().strip()
    return sdk.containers(
        all=True, filters={"label": [f"pool.owner={owner}", *(f"{k}={v}" for k, v in labels.items())]}
    )


def assert_serves_on(daemon, client, worker):
    """The worker is free again, and has a next job."""
    daemon.until(lambda: worker in {each["id"] for each in daemon.workers(state="idle")}, timeout=30)
    daemon.until(lambda: client.run("result = 1").worker == worker, timeout=30)


def test_frames_and_arrays_come_back_as_values(client):
    code = (
        "import numpy as np, pandas as pd\n"
        "def main(frame):\n"
        "    return {'mean': frame.rolling(3).mean(), 'array': np.arange(6).reshape(2, 3), 'scalar': np.float32(1.5)}\n"
    )
    frame = pd.DataFrame({"x": np.arange(5.0), "y": list("abcde")})[["x"]]
    result = client.run(code, entry="main", args=[frame])
    value = result.value
    assert result.stderr == ""  # and nothing that ran before the job
    pd.testing.assert_frame_equal(value["mean"], frame.rolling(3).mean())
    np.testing.assert_array_equal(value["array"], np.arange(6).reshape(2, 3))
    assert value["scalar"] == np.float32(1.5)


def test_a_data_set_is_there_and_cannot_be_changed_for_the_next_job(client):
    code = "prices = datasets['prices']\nfirst = float(prices[0])\nprices[0] = 99\nresult = first, float(prices[0])"
    assert [client.run(code).value for _ in range(3)] == [(1.0, 99.0)] * 3


def test_files_that_do_not_fit_end_error_and_say_so(client):
    result = client.run("result = 1", files={"big": b"x" * (70 << 20)})
    assert (result.outcome, result.error.type) == (Outcome.ERROR, "OSError")
    assert "No space left" in result.error.message


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root can")
def test_a_used_worker_never_serves_another_user_nor_shows_him_a_job(worker_image):
    del worker_image
    with DaemonProcess({"default": TEMPLATE}, engine="docker", submit_mode="0666") as running:
        running.home.chmod(0o755)
        with running.client() as client:
            mine = {client.run("result = 1", job_id=name).container for name in ("mine", "more", "most")}
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            try:
                os.setuid(65534)
                with running.client(timeout=30) as other:
                    theirs = {other.run("result = 1").container for _ in range(3)}
                    try:
                        other.result("mine", timeout=60)
                    except UnknownJobError:
                        os.write(writing, " ".join(theirs).encode())
            finally:
                os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        theirs = set(os.read(reading, 10_000).decode().split())
        os.close(reading)
        assert theirs
        assert not mine & theirs


def test_a_job_sees_no_shell_no_network_and_no_root(client):
    code = (
        "import os, socket\n"
        "seen = {'uid': os.getuid(), 'sh': os.path.exists('/bin/sh')}\n"
        "try: socket.create_connection(('127.0.0.1', 80), 1)\n"
        "except OSError as error: seen['network'] = type(error).__name__\n"
        "try: open('/opt/pool/x', 'w')\n"
        "except OSError as error: seen['root'] = error.strerror\n"
        "result = seen\n"
    )
    seen = client.run(code).value
    assert seen["uid"] >= 1000
    assert seen["sh"] is False
    assert "network" in seen
    assert "Read-only" in seen["root"]


def test_a_job_past_its_wall_limit_dies_with_its_tree_and_the_worker_serves_on(daemon, client, sdk):
    code = (
        "import multiprocessing, os, time\n"
        "def spin():\n"
        "    os.setsid()\n"
        "    while True: time.sleep(1)\n"
        "for _ in range(4): multiprocessing.get_context('fork').Process(target=spin).start()\n"
        "while True: time.sleep(1)\n"
    )
    result = client.run(code, limits=Limits(wall_s=1))
    assert result.outcome is Outcome.TIMEOUT
    processes = sdk.top(result.container)["Processes"]
    assert len(processes) <= 4, processes  # runner, zygote, the parked child and its init
    assert_serves_on(daemon, client, result.worker)


def test_memory_beyond_the_container_kills_the_job_and_not_the_worker(daemon, client):
    shared = "import mmap\nblock = mmap.mmap(-1, 900 << 20)\nfor at in range(0, len(block), 4096): block[at] = 1\n"
    result = client.run(shared)  # shared memory, which only the container's own limit counts
    assert (result.outcome, result.signal) == (Outcome.MEMORY, signal.SIGKILL), result
    assert_serves_on(daemon, client, result.worker)


def test_memory_of_a_jobs_children_is_bounded_too(daemon, client):
    code = (
        "import multiprocessing, time\n"
        "def eat():\n"
        "    block = bytearray(300_000_000)\n"
        "    for at in range(0, len(block), 4096): block[at] = 1\n"
        "    time.sleep(5)\n"
        "eaters = [multiprocessing.get_context('fork').Process(target=eat) for _ in range(3)]\n"
        "for each in eaters: each.start()\n"
        "for each in eaters: each.join()\n"
        "result = [each.exitcode for each in eaters]\n"
    )
    result = client.run(code)
    assert result.outcome is Outcome.MEMORY or -signal.SIGKILL in result.value, result
    assert_serves_on(daemon, client, result.worker)


def test_with_max_jobs_1_every_job_sees_a_container_no_one_has_used(client):
    seen = []
    for _ in range(5):
        result = client.run("import os\nold = os.listdir('/tmp/..' )\nresult = os.listdir('/dev/shm')", pool="single")
        assert result.outcome is Outcome.OK
        seen.append(result.container)
    assert len(set(seen)) == 5


def test_after_n_jobs_a_worker_is_replaced_in_the_background(daemon, client):
    by_container = {}
    for _ in range(9):
        container = client.run("result = 1", pool="triple").container
        by_container[container] = by_container.get(container, 0) + 1
    assert max(by_container.values()) <= 3
    assert len(by_container) >= 3
    assert daemon.pool("triple")["recycles"]["max_jobs"] >= 2


def test_a_container_killed_from_outside_is_noticed_and_replaced(daemon, client, sdk):
    job_id = client.submit("import time; time.sleep(60)")
    victim = daemon.worker_of(job_id)
    sdk.kill(victim["container"])
    result = client.result(job_id, timeout=30)
    assert (result.outcome, result.container) == (Outcome.LOST, victim["container"])
    daemon.until(lambda: len(daemon.workers(state="idle")) >= 2)
    assert not any(each["Id"] == victim["container"] for each in containers(sdk, daemon))


def test_the_order_of_a_set_is_the_same_in_every_worker(client):
    code = "print(list({f'asset-{n}' for n in range(100)}))\n"
    here = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "0"}, stdout=subprocess.PIPE, text=True, check=True
    )
    results = [client.run(code, pool="single") for _ in range(3)]
    assert len({each.worker for each in results}) == 3
    assert {each.stdout for each in results} == {here.stdout}


def test_an_executor_maps_in_order_and_raises_what_the_job_raised(daemon):
    def half(x):
        if x == 3:
            raise ValueError("three is odd")
        return x / 2

    with PoolExecutor(daemon.endpoint) as executor:
        assert list(executor.map(half, [2, 4, 6])) == [1.0, 2.0, 3.0]
        with pytest.raises(JobFailedError, match="three is odd"):
            executor.submit(half, 3).result(30)


def test_cancelling_a_running_future_kills_its_job(daemon):
    import concurrent.futures

    def forever():
        import time

        time.sleep(600)

    with PoolExecutor(daemon.endpoint) as executor:
        future = executor.submit(forever)
        daemon.until(lambda: daemon.pool()["running"] == 1)
        assert future.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(30)
    daemon.until(lambda: daemon.pool()["running"] == 0, timeout=20)


def test_a_hundred_jobs_in_one_worker_leave_it_flat(daemon, client):
    for _ in range(20):
        client.run("import os\nopen('f', 'w').write('x' * 10000)")
    daemon.until(lambda: daemon.workers() and daemon.workers() == daemon.workers(state="idle"))
    before = {each["id"]: each["rss_bytes"] for each in daemon.workers()}
    for _ in range(100):
        assert client.run("x = bytearray(5_000_000)\nopen('f', 'w').write('x' * 10000)").outcome is Outcome.OK
    after = {each["id"]: each["rss_bytes"] for each in daemon.workers()}
    shared = before.keys() & after.keys()
    assert shared
    assert all(after[each] < before[each] * 1.3 + 10_000_000 for each in shared)


def test_sigterm_removes_every_container(worker_image, sdk):
    del worker_image
    with DaemonProcess({"default": TEMPLATE}, engine="docker") as running:
        running.until(lambda: len(running.workers(state="idle")) == 2)
        owner = (running.state_dir / "owner").read_text().strip()
        assert running.stop() == 0
    assert sdk.containers(all=True, filters={"label": f"pool.owner={owner}"}) == []


def test_what_a_killed_daemon_left_is_adopted_and_nobody_elses(worker_image, sdk, tmp_path):
    """The idle worker serves on, bound to its client; the one with a job that nobody knows is removed."""
    del worker_image
    home = f"/tmp/pool.{os.getpid()}"
    os.makedirs(home)
    try:
        first = DaemonProcess({"default": TEMPLATE}, engine="docker", home=home).start()
        with DaemonProcess({"default": TEMPLATE | {"size": {"min": 1, "max": 1}}}, engine="docker") as other:
            others = {each["container"] for each in other.workers()}
            with first.client() as client:
                served = client.run("result = 1").container
                client.submit("import time; time.sleep(60)")
            first.until(lambda: len(first.workers(state="leased")) == 1 and len(first.workers(state="idle")) == 1)
            (busy,) = (each["container"] for each in first.workers(state="leased"))
            (free,) = (each["container"] for each in first.workers(state="idle"))
            assert served in {busy, free}
            first.kill()
            second = DaemonProcess({"default": TEMPLATE}, engine="docker", home=home).start()
            try:
                second.until(lambda: len(second.workers(state="idle")) == 2)
                alive = {each["Id"] for each in sdk.containers(all=True)}
                assert (busy in alive, free in alive) == (False, True)
                assert second.pool()["recycles"] == {"unknown_job": 1}
                assert others <= alive
                with second.client(timeout=60) as client:
                    values = {client.run("import numpy\nresult = int(numpy.int64(6) * 7)").value for _ in range(3)}
                assert values == {42}
                assert second.pool()["recycles"] == {"unknown_job": 1}, "no worker was found changed after its jobs"
            finally:
                second.stop()
    finally:
        subprocess.run(["rm", "-rf", home], check=True)


def test_a_missing_image_is_named_with_the_command_that_builds_it(tmp_path):
    running = DaemonProcess({"default": TEMPLATE | {"image": "no-such-image:1"}}, engine="docker", wait_ready=False)
    try:
        running.start()
        assert running.process.wait(60) == 1
        assert "no-such-image:1" in running.words()
        assert "pool-admin image build" in running.words()
    finally:
        running.stop()


def test_an_engine_that_does_not_answer_is_named_with_what_to_do(tmp_path):
    config = tmp_path / "pool.yaml"
    config.write_text(f"daemon: {{run_dir: /tmp/pool.x{os.getpid()}/r, state_dir: /tmp/pool.x{os.getpid()}/s}}\n")
    ended = python(
        "-m",
        "pool.cli.daemon",
        "--config",
        str(config),
        env=os.environ | {"DOCKER_HOST": "unix:///nowhere/docker.sock"},
    )
    subprocess.run(["rm", "-rf", f"/tmp/pool.x{os.getpid()}"], check=True)
    assert ended.returncode == 1
    assert "/nowhere/docker.sock" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_image_of_other_sources_is_refused_at_the_handshake(worker_image, sdk):
    import io
    import tarfile

    del worker_image
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, text in {
            "Dockerfile": "FROM pool-worker:latest\nCOPY extra.py /opt/pool/runner/extra.py\n",
            "extra.py": "#",
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    for event in sdk.build(fileobj=context, custom_context=True, tag="pool-worker-stale:test", decode=True, rm=True):
        assert "error" not in event, event
    try:
        pools = {"default": TEMPLATE | {"image": "pool-worker-stale:test"}}
        with DaemonProcess(pools, engine="docker", wait_ready=False) as running:
            running.until(lambda: running.pool()["breaker"]["open"])
            assert "pool-admin image build" in running.pool()["breaker"]["last_reason"]
            admin = python("-m", "pool.cli.admin", "--run-dir", str(running.run_dir), "status")
            assert admin.returncode == 4
            assert "image build" in admin.stdout
    finally:
        sdk.remove_image("pool-worker-stale:test", force=True)


def test_status_shows_what_a_person_and_a_script_look_for(daemon, client):
    client.run("result = 1")
    snapshot = daemon.status()
    pool = daemon.pool()
    assert snapshot["daemon"]["state"] == "running"
    assert pool["engine"] == "docker"
    assert pool["jobs"]["ok"] >= 1
    assert pool["overhead_ms"]["p50"] > 0
    assert 0 < pool["hit_rate"] <= 1
    worker = pool["workers"][0]
    assert {"id", "container", "state", "jobs", "age_s", "rss_bytes", "lockdown", "isolation", "job"} <= worker.keys()
    assert worker["rss_bytes"] > 10_000_000


def test_workers_of_age_are_replaced_one_after_another(worker_image):
    del worker_image
    pools = {"default": TEMPLATE | {"size": {"min": 2, "max": 3}, "recycle": {"max_jobs": 1000, "max_age_s": 4}}}
    with DaemonProcess(pools, engine="docker") as running, running.client() as client:
        running.until(lambda: len(running.workers(state="idle")) == 2)
        first = {each["id"] for each in running.workers()}
        deadline = time.monotonic() + 300  # three starts, one after the other
        while first & {each["id"] for each in running.workers()} and time.monotonic() < deadline:
            assert client.run("result = 1").value == 1
            time.sleep(0.2)
        assert not first & {each["id"] for each in running.workers()}
        assert running.pool()["recycles"]["max_age"] >= 2
