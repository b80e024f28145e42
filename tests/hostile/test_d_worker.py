"""The worker over its life: flat after a thousand jobs, replaced when something is not as it was, one user's only."""

import os
import signal
import subprocess
import sys

import pytest

from tests.hostile.alone import one_worker

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into another user's processes"),
]

JOBS = 1000
#: Pages that are touched for the first time late: a margin for bytes, none for anything that is counted.
_MARGIN_BYTES = 1_500_000


@pytest.mark.timeout(900)  # where other programs have the cores
def test_d28_a_thousand_jobs_leave_a_worker_flat(alone, record):
    code = """
import os, socket
def main(turn):
    with open(f"file{turn}", "w") as file, open(f"/dev/shm/file{turn}", "w") as shared:
        file.write("x" * 10_000), shared.write("x" * 10_000)
    held = bytearray(200_000), socket.socketpair(), socket.socketpair()
    if turn % 20 == 0 and os.fork() == 0:
        os.setsid()
        os.read(held[1][0].fileno(), 1)
    if turn % 50 == 1:
        raise ValueError("as jobs do")
    return turn
"""
    for turn in range(100):
        alone.run(code, turn)
    view = alone.view()
    before = view.usage()
    for turn in range(JOBS):
        result = alone.run(code, turn)
        assert result.outcome == ("error" if turn % 50 == 1 else "ok"), result
    after = alone.view().usage()
    assert alone.view().container == view.container
    grown = {name: (value, after[name]) for name, value in before.items() if after[name] > value + _margin(name, value)}
    assert grown == {}
    assert alone.view().zombies() == []
    record("D28", f"{JOBS} jobs in one worker", "INERT", stopped_by=["runner", "namespaces"],
           seen=", ".join(f"{name} {before[name]} to {after[name]}" for name in before))  # fmt: skip


def _margin(name, value):
    return max(value * 0.02, _MARGIN_BYTES) if name.endswith("anonymous") else 0


# ---- deviations, made from the host because no job can -----------------------------------------------------------------


def as_the_worker(uid, code):
    """Runs code as the worker's own user, whom the kernel lets change that user's processes."""
    program = f"import os, resource\nos.setgroups([])\nos.setresgid({uid}, {uid}, {uid})\nos.setresuid({uid}, {uid}, {uid})\n{code}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def _status_uid(pid):
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Uid:"))


def lower_descriptors(view, pid):
    code = f"resource.prlimit({pid}, resource.RLIMIT_NOFILE, (200, 256))"
    as_the_worker(_status_uid(pid), code)


def lower_the_stack_of_the_zygote(view):
    code = f"resource.prlimit({view.zygote}, resource.RLIMIT_STACK, (1 << 20, 1 << 20))"
    as_the_worker(_status_uid(view.zygote), code)


def drop_a_file(view):
    with open(f"/proc/{view.runner}/root/tmp/dropped", "w") as file:
        file.write("x")
    os.chmod(f"/proc/{view.runner}/root/tmp/dropped", 0o600)


def drop_a_file_that_stays(view):
    """In a directory of root's, that the runner can neither enter nor empty."""
    place = f"/proc/{view.runner}/root/dev/shm/closed"
    os.mkdir(place, 0o700)
    with open(f"{place}/dropped", "w") as file:
        file.write("x")


def keep_one_core(pid):
    one, *others = os.sched_getaffinity(pid)
    if not others:
        pytest.skip("it has one core already")
    os.sched_setaffinity(pid, {one})


def mount_something(view):
    _inside(
        view, "mnt", "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/dev/mqueue', b'tmpfs', 0, None) == 0"
    )


def leave_a_semaphore(view):
    _inside(view, "ipc", "import ctypes\nassert ctypes.CDLL(None).semget(4242, 1, 0o1666) >= 0")


def _inside(view, kind, code):
    """As root in a namespace of the runner's."""
    flags = {"mnt": 0x00020000, "ipc": 0x08000000}
    program = f"import ctypes, os\nfd = os.open('/proc/{view.runner}/ns/{kind}', os.O_RDONLY)\n"
    program += f"libc = ctypes.CDLL(None, use_errno=True)\nassert libc.setns(fd, {flags[kind]}) == 0, ctypes.get_errno()\n{code}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


DEVIATIONS = {
    "limits of the runner": ("limits", lambda view: lower_descriptors(view, view.runner)),
    "limits of the zygote": ("limits", lower_the_stack_of_the_zygote),
    "niceness of the runner": ("scheduling", lambda view: os.setpriority(os.PRIO_PROCESS, view.runner, 7)),
    "niceness of the zygote": ("scheduling", lambda view: os.setpriority(os.PRIO_PROCESS, view.zygote, 7)),
    "affinity": ("scheduling", lambda view: keep_one_core(view.runner)),
    "oom score": ("scheduling", lambda view: _write(f"/proc/{view.runner}/oom_score_adj", "777")),
    "a mount": ("mounts", mount_something),
    "a semaphore": ("ipc", leave_a_semaphore),
    "a file that cannot be removed": ("files", drop_a_file_that_stays),
}  # fmt: skip


def _write(path, text):
    with open(path, "w") as file:
        file.write(text)


@pytest.mark.parametrize("what", DEVIATIONS)
def test_d16_a_worker_that_is_not_as_it_was_is_replaced_and_counted(alone, record, what):
    word, change = DEVIATIONS[what]
    before = alone.honest()
    view = alone.view()
    counted = alone.recycles("dirty")
    change(view)
    # Code of its own each time: the pool refuses code that has cost it several workers.
    assert alone.run(f"def main():\n    return {what!r}").worker == before.worker, "it is found after a job, not before"
    alone.daemon.until(lambda: alone.recycles("dirty") == counted + 1, timeout=120)
    after = alone.honest()
    assert after.worker != before.worker
    assert f"was not clean after the job ({word}: " in _reason(alone, before.worker)
    record("D16", f"{what} changed from the host", "QUAR", stopped_by=["runner", "daemon"], seen=f"dirty: {word}")


def test_d5_a_file_that_can_be_removed_is_removed_and_the_worker_serves_on(alone, record):
    before = alone.honest()
    view = alone.view()
    drop_a_file(view)
    os.chown(f"/proc/{view.runner}/root/tmp/dropped", _status_uid(view.runner), -1)
    assert alone.honest().worker == before.worker
    alone.rest()
    assert os.listdir(f"/proc/{view.runner}/root/tmp") == []
    record("D5", "a file in the worker's own /tmp", "INERT", stopped_by=["runner"], seen="removed after the next job")


@pytest.mark.parametrize("own", [True, False], ids=["the worker's user", "another user"])
def test_d1_a_stray_process_in_the_workers_own_namespace_does_not_outlive_the_next_job(alone, record, own):
    """Started from the host, and orphaned there: its parent is the runner then, as it would be of a job's orphan."""
    before = alone.honest()
    view = alone.view()
    stray = _start_stray(view, _status_uid(view.runner) if own else 0)
    counted = alone.recycles("dirty")
    assert alone.run(f"def main():\n    return {own}").value is own
    if own:
        assert alone.honest().worker == before.worker
        assert not os.path.exists(f"/proc/{stray}")
    else:
        alone.daemon.until(lambda: alone.recycles("dirty") == counted + 1, timeout=120)
        alone.daemon.until(lambda: not os.path.exists(f"/proc/{stray}"), timeout=120)
        assert "processes: " in _reason(alone, before.worker)
        assert alone.honest().worker != before.worker
    record("D1", f"a stray process of {'the same' if own else 'another'} user in the worker, from the host",
           "INERT" if own else "QUAR", stopped_by=["runner"], seen="ended" if own else "its worker is replaced")  # fmt: skip


def _start_stray(view, uid):
    """Its pid on the host."""
    program = f"""
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
assert libc.setns(os.open("/proc/{view.runner}/ns/pid", os.O_RDONLY), 0x20000000) == 0
os.setresgid({uid}, {uid}, {uid}), os.setresuid({uid}, {uid}, {uid})
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        print(os.readlink("/proc/self"), flush=True)
        time.sleep(300)
    os._exit(0)
os.wait()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as starting:
        return int(starting.stdout.readline())


def _reason(alone, worker):
    return " | ".join(entry["what"] for entry in alone.daemon.call("history", id=worker)["entries"])


def test_d4_a_runner_that_is_stopped_is_replaced(alone, record):
    before = alone.honest()
    view = alone.view()
    replaced = alone.recycles("frozen")
    os.kill(view.runner, signal.SIGSTOP)
    alone.daemon.until(lambda: alone.recycles("frozen") > replaced, timeout=60)
    assert alone.honest().worker != before.worker
    record("E18", "the runner stopped from the host", "QUAR", stopped_by=["daemon"], seen="replaced")


# ---- two users -------------------------------------------------------------------------------------------------------


def test_d22_a_used_worker_never_serves_another_user():
    """One worker at most: the second user's job waits until the first user's worker is replaced by one for it."""
    with one_worker({"submit_mode": "0666"}) as alone:
        alone.daemon.home.chmod(0o755)
        first = alone.run("def main():\n    open('/tmp/mine', 'w').write('secret')\n    return 1")
        told = as_another_user(alone.daemon, "import os\nresult = os.listdir('/tmp'), os.listdir('/dev/shm')")
        assert told["container"] != first.container
        assert told["value"] == (["work"], [])
        again = alone.honest()
        assert again.container not in {first.container, told["container"]}
        assert alone.recycles("foreign") == 2


def as_another_user(daemon, code):
    """A process of another user id on this host connects to the same socket; the interpreter has to be loaded by then."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with daemon.client(timeout=60) as client:
                result = client.run(code)
                os.write(writing, repr({"container": result.container, "value": result.value}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading) as answer:
        return eval(answer.read())
