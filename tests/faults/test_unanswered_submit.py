"""The daemon is killed between a Submit and its answer: the client's call goes on with the next daemon, and runs once."""

import asyncio
import signal
import threading
from collections import Counter

import pytest

from pool import AsyncClient, Client, SandboxExecutor
from pool.errors import DaemonUnreachableError
from tests.support.daemons import DaemonProcess, pool_of

POOL = pool_of(1, limits={"wall_s": 60, "cpu_s": 60})
#: Its runs are counted outside of the sandbox, which a plain process does not have. It lasts so long that Accepted does not
#: wait for its result.
CODE = "import time\ndef main(path, job):\n    open(path, 'a').write(f'{job}\\n')\n    time.sleep(0.15)\n    return job"
#: For what the daemon does while it starts, on a busy machine.
WAIT_S = 300
#: Before and after the job is in the journal, and before and after it is acknowledged.
POINTS = ("write:Accept", "written:Accept", "send:Accepted", "sent:Accepted")


def _value(result):
    """Or why there is none, so that a failure tells it."""
    return result.value if result.value is not None else str(result)


async def _in_asyncio(endpoint, jobs, ready):
    async with AsyncClient(endpoint, timeout=WAIT_S) as client:
        await client.run("")
        await asyncio.to_thread(ready.wait)
        results = await asyncio.gather(*(client.run(CODE, entry="main", args=job) for job in jobs))
    return [_value(each) for each in results]


def _with_client(call):
    """The call, with a client that knows the daemon; it begins when the other ones do."""

    def ready(endpoint, jobs, ready):
        with Client(endpoint, timeout=WAIT_S) as client:
            client.run("")
            ready.wait()
            return call(client, jobs)

    return ready


def _run_tests(client, jobs):
    given = [{"args": job, "expected": job[1]} for job in jobs]
    return [_value(row.job) for row in client.run_tests(CODE, given, entry="main").cases]


def _sandbox(client, jobs):
    with SandboxExecutor(client=client, wait_s=WAIT_S) as executor:
        return [_value(executor.execute(CODE, job)) for job in jobs]


CALLS = {
    "run": _with_client(lambda client, jobs: [_value(client.run(CODE, entry="main", args=job)) for job in jobs]),
    "submit": _with_client(
        lambda client, jobs: [_value(client.result(client.submit(CODE, entry="main", args=job))) for job in jobs]
    ),
    "map": _with_client(lambda client, jobs: [_value(each) for each in client.map(CODE, jobs, entry="main")]),
    "run_tests": _with_client(_run_tests),
    "SandboxExecutor": _with_client(_sandbox),
    "AsyncClient": lambda *arguments: asyncio.run(_in_asyncio(*arguments)),
}


@pytest.mark.parametrize("passes", [len(CALLS), len(CALLS) + 5])
@pytest.mark.parametrize("point", POINTS)
def test_each_call_ends_with_its_value_and_each_job_has_run_once(tmp_path, monkeypatch, point, passes):
    effects, found, ready = tmp_path / "effects", {}, threading.Barrier(len(CALLS))
    monkeypatch.setenv("POOL_FAILPOINT", f"{point}:{passes}")
    settings = {"home": tmp_path, "durability": "crash"}
    daemon = DaemonProcess({"default": POOL}, engine="failing", **settings).start()

    def call(name):
        jobs = [[str(effects), f"{name} {number}"] for number in range(3)]
        found[name] = CALLS[name](daemon.endpoint, jobs, ready)

    threads = [threading.Thread(target=call, args=(name,)) for name in CALLS]
    for thread in threads:
        thread.start()
    assert daemon.process.wait(WAIT_S) == -signal.SIGKILL, daemon.words()
    with DaemonProcess({"default": POOL}, **settings) as following:
        for thread in threads:
            thread.join(WAIT_S)
        words = following.words()
    assert found == {name: [f"{name} {number}" for number in range(3)] for name in CALLS}, (found, words)
    assert set(Counter(effects.read_text().splitlines()).values()) == {1}


def test_without_a_journal_a_call_whose_job_may_have_run_ends_with_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("POOL_FAILPOINT", "send:Accepted:1")
    settings = {"home": tmp_path, "durability": "none"}
    daemon = DaemonProcess({"default": POOL}, engine="failing", **settings).start()
    with daemon.client(timeout=60) as client:
        client.run(CODE, entry="main", args=[str(tmp_path / "effects"), "before"])
        raised = []

        def call():
            with pytest.raises(DaemonUnreachableError) as error:
                client.run(CODE, entry="main", args=[str(tmp_path / "effects"), "job"])
            raised.append(error.value)

        thread = threading.Thread(target=call)
        thread.start()
        assert daemon.process.wait(180) == -signal.SIGKILL
        with DaemonProcess({"default": POOL}, **settings):
            thread.join(180)
    assert "job_id" in raised[0].fields
    assert (tmp_path / "effects").read_text().count("job") <= 1
