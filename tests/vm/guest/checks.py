"""The checks of a running pool: it works, its limits hold, and it reports the isolation of its jobs.

Each check takes the scene and returns (passed, what was seen). The list at the end is the order of the table's rows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from guest import kernel_log
from guest.service import Service

from pool.client import Client
from pool.model import Limits, Outcome

MEMORY, TMP, PROCESSES = 256 << 20, 16 << 20, 24


@dataclass(frozen=True, kw_only=True)
class Scene:
    service: Service
    client: Client
    profile: str

    def cgroup(self):
        """The worker's cgroup, as the host sees it."""
        pid = self.service.container_pid()
        return Path("/sys/fs/cgroup" + Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::"))

    def events(self, name):
        return {key: int(value) for key, value in map(str.split, (self.cgroup() / name).read_text().splitlines())}


def status_says_running(scene):
    status, answer = scene.service.admin("status", "--json")
    engine = answer["daemon"]["engine"]
    seen = f"exit status {status}; {engine['runtime']}, cgroups {engine['cgroups']}"
    return status == 0 and answer["daemon"]["state"] == "running" and engine["cgroups"] == "v2", seen


def the_profile_confines_the_runner(scene):
    pid = scene.service.container_pid()
    current = Path(f"/proc/{pid}/attr/current").read_text().strip("\0\n")
    return current == f"{scene.profile} (enforce)", current


def isolation_is_full_or_names_what_is_missing(scene):
    pool = scene.service.pool()
    level, missing = pool["isolation"], pool["missing"]
    named = f"without {'; '.join(missing)}" if missing else "nothing missing"
    return level == "namespaces" if not missing else level in ("partial", "plain"), f"{level}, {named}"


def the_lockdown_is_proven(scene):
    proven = scene.service.worker()["lockdown"]
    return proven == ("degraded" if scene.service.pool()["missing"] else "verified"), proven


def a_job_does_nothing(scene):
    result = scene.client.run("result = 1")
    return (result.outcome, result.value) == (Outcome.OK, 1), f"{result.outcome}, {result.start}, {_ms(result)}"


def a_job_uses_numpy_and_pandas(scene):
    code = (
        "import numpy as np, pandas as pd\n"
        "frame = pd.DataFrame({'x': np.arange(1000.0)})\n"
        "result = float(frame.x.rolling(20).mean().sum()), float(np.linalg.det(np.eye(50)))\n"
    )
    result = scene.client.run(code)
    return result.outcome is Outcome.OK and result.value[1] == 1.0, f"{result.outcome}, {_ms(result)} {_why(result)}"


def a_job_past_its_wall_time(scene):
    result = scene.client.run("while True: pass", limits=Limits(wall_s=3))
    return result.outcome is Outcome.TIMEOUT, result.outcome


def a_job_past_its_own_memory(scene):
    result = scene.client.run("x = bytearray(900 << 20)")
    return result.outcome is Outcome.MEMORY, f"{result.outcome} {_why(result)}"


def a_job_past_the_workers_memory(scene):
    """Shared memory, which only the cgroup counts: the kernel kills the job, and its counter is the evidence."""
    before, worker = scene.events("memory.events"), scene.service.worker()["id"]
    code = f"import mmap\nblock = mmap.mmap(-1, {2 * MEMORY})\nfor at in range(0, len(block), 4096): block[at] = 1\n"
    result = scene.client.run(code)
    after = scene.events("memory.events")
    kills = after["oom_kill"] - before["oom_kill"]
    survived = scene.client.run("result = 1").worker == worker
    seen = f"{result.outcome}, memory.events: oom_kill +{kills}, worker {'serves on' if survived else 'was replaced'}"
    return result.outcome is Outcome.MEMORY and kills > 0 and survived, seen


def memory_limit_of_the_container(scene):
    limits = [(scene.cgroup() / name).read_text().strip() for name in ("memory.max", "memory.swap.max")]
    return limits == [str(MEMORY), "0"], "memory.max {}, memory.swap.max {}".format(*limits)


def a_job_past_its_processes(scene):
    code = (
        "import threading\n"
        "stop, started = threading.Event(), []\n"
        "try:\n"
        "    for _ in range(100):\n"
        "        thread = threading.Thread(target=stop.wait); thread.start(); started.append(thread)\n"
        "except RuntimeError: pass\n"
        "stop.set()\n"
        "result = len(started)\n"
    )
    before = scene.events("pids.events")["max"]
    result = scene.client.run(code)
    refused = scene.events("pids.events")["max"] - before
    most = int((scene.cgroup() / "pids.max").read_text())
    started = result.value if result.outcome is Outcome.OK else 0
    seen = f"{started} threads started of {PROCESSES}; of the worker's {most} refused: {refused} {_why(result)}"
    return 0 < started < PROCESSES or (0 < started < most and refused > 0), seen


def a_job_past_its_scratch_space(scene):
    code = (
        "written = 0\n"
        "try:\n"
        "    for number in range(100):\n"
        "        with open(f'part{number}', 'wb', buffering=0) as file:\n"
        "            for _ in range(16): written += file.write(b'x' * 65536)\n"
        "except OSError as error: result = written, error.strerror\n"
    )
    result = scene.client.run(code)
    written, error = result.value or (0, _why(result))
    return 0 < written <= TMP, f"{written} bytes in files of 1 MiB, then: {error}"


def a_job_has_no_network(scene):
    code = "import socket\ntry: socket.socket(); result = 'made'\nexcept OSError as error: result = error.strerror\n"
    result = scene.client.run(code)
    return result.outcome is Outcome.OK and result.value != "made", result.value


def fifty_jobs_leave_one_worker_flat(scene):
    worker = scene.service.worker()["id"]
    code = "open('left', 'w').write('x' * 10000)\nresult = 1"
    results = [scene.client.run(code) for _ in range(50)]
    same = {result.worker for result in results} == {worker}
    held = (scene.cgroup() / "pids.current").read_text().strip()
    fine = sum(result.outcome is Outcome.OK for result in results)
    return fine == len(results) and same, f"{fine} of {len(results)} ok, {held} processes then"


def doctor_speaks_of_the_host(scene):
    status, answer = scene.service.doctor()
    if isinstance(answer, str):
        return False, f"exit status {status}: {answer[:200]}"
    by_verdict = {}
    for each in answer["host"]:
        by_verdict.setdefault(each["verdict"], []).append(each["id"])
    parts = [
        f"{len(ids)} ok" if verdict == "ok" else f"{verdict}: {', '.join(ids)}" for verdict, ids in by_verdict.items()
    ]
    return status in (0, 4), "; ".join(parts)


def probes(service):
    """What each worker proved of itself before its first lease: probe, verdict, what it saw."""
    status, answer = service.doctor()
    if isinstance(answer, str) or not answer["daemon"]:
        raise RuntimeError(f"doctor ended with {status}: {answer}")
    return [
        (row["probe"], row["verdict"], row["seen"])
        for worker in answer["daemon"]["workers"]
        for row in worker["probes"]
    ]


def apparmor_denied_nothing_more(scene):
    """What the kernel logged while ordinary jobs ran; docker-default is expected to deny what the zygote tries."""
    seen = kernel_log.denials(scene.profile)
    return not seen or scene.profile == "docker-default", ", ".join(seen) or "nothing"


def _ms(result):
    return f"{result.timings.total_ms:.0f} ms" if result.timings else ""


def _why(result):
    return f"({result.error.type}: {result.error.message})" if result.error else ""


CHECKS = {
    "`pool-admin status --json`": status_says_running,
    "AppArmor profile in force in the worker": the_profile_confines_the_runner,
    "isolation is full, or says what is missing": isolation_is_full_or_names_what_is_missing,
    "the worker's own proof of its lockdown": the_lockdown_is_proven,
    "no-op job": a_job_does_nothing,
    "job with numpy and pandas": a_job_uses_numpy_and_pandas,
    "past its wall time: `timeout`": a_job_past_its_wall_time,
    "past its own memory: `memory`": a_job_past_its_own_memory,
    "past the worker's memory: `memory`": a_job_past_the_workers_memory,
    "memory limit, no swap on top": memory_limit_of_the_container,
    "past its processes": a_job_past_its_processes,
    "past its scratch space": a_job_past_its_scratch_space,
    "no network": a_job_has_no_network,
    "50 jobs in one worker": fifty_jobs_leave_one_worker_flat,
    "`pool-admin doctor`: the host": doctor_speaks_of_the_host,
    "what AppArmor denied meanwhile": apparmor_denied_nothing_more,
}


def landlock_abi():
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(444, None, 0, 1)
    return version if version > 0 else f"none ({os.strerror(ctypes.get_errno())})"
