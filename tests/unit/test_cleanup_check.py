"""The checks of a worker after each job: each kind of change is reported by its name, and nothing else.

Run in a process of its own, which is a runner with a `zygote` and then changes itself in the way that is tested.
"""

import json
import os
from pathlib import Path

import pytest
from runner import baseline

from pool.daemon.metrics import RESIDUE
from tests.support.process import python

ROOT = Path(__file__).parents[2]
CHECKS = 8  #: the byte code of all functions has been looked at after this many

_RUNNER = """
import ctypes, json, os, resource, signal, subprocess, sys, threading, time
sys.path.insert(0, "worker_image")
libc = ctypes.CDLL(None)
alone = libc.unshare(0x20000) == 0 and libc.mount(None, b"/", None, 0x44000, None) == 0  # else others' mounts are seen
for target in [line.split()[4] for line in open("/proc/self/mountinfo")]:
    if alone and any(part in target for part in ("docker", "netns", "overlay2", "/containers/")):  # whoever removes such a directory takes the mount along
        libc.umount2(target.encode(), 2)
from runner import attempt, cleanup, runner, usage
from runner.baseline import Baseline
zygote = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
try:
    while not os.path.exists(f"/proc/{zygote.pid}/task"):
        time.sleep(0.01)
    baseline = Baseline(zygote.pid)
    clean = [baseline.deviations() for _ in range(8)]
    CHANGE
    found = [baseline.deviations() for _ in range(8)]
    UNDO
    told = [*clean, *found, baseline.deviations()]
    if not alone:
        told = [[each for each in words if not each.startswith("mounts: ")] for words in told]
    print(json.dumps([told[:8], told[8:16], told[16]]), flush=True)
finally:
    zygote.kill()
    zygote.wait()
    os._exit(0)
"""


def changed(change, undo="pass"):
    """What is told before the change, at each of the checks after it, and after it was undone."""
    program = _RUNNER.replace("CHANGE", change.replace("\n", "\n    ")).replace("UNDO", undo.replace("\n", "\n    "))
    done = python("-c", program, cwd=ROOT)
    assert done.stdout, done.stderr
    clean, found, after = json.loads(done.stdout)
    assert clean == [[]] * CHECKS, "nothing had happened yet"
    return found, after


CHANGES = {
    "a limit of the runner": (
        "limits",
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))",
    ),
    "a limit of the zygote": ("limits", "resource.prlimit(zygote.pid, resource.RLIMIT_CPU, (1000, 2000))"),
    "the runner's priority": ("scheduling", "os.setpriority(os.PRIO_PROCESS, 0, 17)"),
    "the zygote's priority": ("scheduling", "os.setpriority(os.PRIO_PROCESS, zygote.pid, 17)"),
    "the zygote's cores": (
        "scheduling",
        "os.sched_setaffinity(zygote.pid, {min(os.sched_getaffinity(0))} if len(os.sched_getaffinity(0)) > 1 else {0})",
    ),
    "the zygote's policy": ("scheduling", "os.sched_setscheduler(zygote.pid, os.SCHED_BATCH, os.sched_param(0))"),
    "who is killed first": ("scheduling", 'open(f"/proc/{zygote.pid}/oom_score_adj", "w").write("777")'),
    "a thread": ("threads", "gate = threading.Event()\nthreading.Thread(target=gate.wait, daemon=True).start()"),
    "an open descriptor": ("descriptors", "left = os.open('/dev/null', os.O_RDONLY)"),
    "a closed descriptor": ("descriptors", "os.close(0)"),
}


@pytest.mark.parametrize(("kind", "change"), CHANGES.values(), ids=[name.replace(" ", "-") for name in CHANGES])
def test_a_change_is_told_by_its_kind_at_every_check_from_then_on(kind, change):
    if "cores" in change and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one core")
    found, _ = changed(change)
    assert found == [[f"{kind}: not as before the job"]] * CHECKS


def test_a_function_that_was_replaced_is_seen_at_the_next_check():
    found, after = changed("kept = cleanup.empty\ncleanup.empty = lambda path: ''", "cleanup.empty = kept")
    assert found == [["code: not as before the job"]] * CHECKS
    assert after == []


def test_a_method_that_was_replaced_is_seen_at_the_next_check():
    found, _ = changed("attempt.Attempt.kill = lambda self, why: None")
    assert found == [["code: not as before the job"]] * CHECKS


@pytest.mark.parametrize(
    "function", ["cleanup.empty", "cleanup.kill_strays", "runner.Runner._start", "usage.oom_kills"]
)
def test_other_byte_code_in_the_same_function_is_seen_within_eight_checks(function):
    found, _ = changed(f"{function}.__code__ = (lambda *given, **named: None).__code__")
    assert ["code: not as before the job"] in found


def test_several_changes_are_told_together():
    found, _ = changed("left = os.open('/dev/null', os.O_RDONLY)\nos.setpriority(os.PRIO_PROCESS, 0, 17)")
    told = ["scheduling: not as before the job", "descriptors: not as before the job"]
    assert found == [told] * CHECKS


def test_what_was_undone_is_no_change():
    found, after = changed("left = os.open('/dev/null', os.O_RDONLY)", "os.close(left)")
    assert found == [["descriptors: not as before the job"]] * CHECKS
    assert after == []


@pytest.mark.parametrize("change", ["os.eventfd(0)", "opened = os.eventfd(0); baseline.deviations(); os.close(opened)"])
def test_an_eventfd_is_libzmqs_and_no_change(change):
    found, after = changed(change, "os.open('/dev/null', os.O_RDONLY)")
    assert found == [[]] * CHECKS
    assert after == ["descriptors: not as before the job"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_a_mount_is_told():
    found, _ = changed("assert alone and libc.mount(b'tmpfs', b'/mnt', b'tmpfs', 0, None) == 0")
    assert found == [["mounts: not as before the job"]] * CHECKS


@pytest.mark.parametrize(
    ("other", "seen"),
    [
        (b"1080 1057 254:0 /run/w/1 /run/pool ro,relatime master:3 - ext4 /dev/vda ro,noatime\n", False),
        (b"1080 1057 254:0 /run/w/1 /run/pool ro,relatime - ext4 /dev/vda rw\n", False),
        (b"1080 1057 254:0 /run/w/1 /run/pool rw,relatime master:3 - ext4 /dev/vda rw\n", True),
        (b"1081 1057 254:0 /run/w/1 /run/pool ro,relatime master:3 - ext4 /dev/vda rw\n", True),
        (b"1080 1057 254:0 /run/w/2 /run/pool ro,relatime master:3 - ext4 /dev/vda rw\n", True),
        (b"1080 1057 254:0 /run/w/1 /run/pool ro,relatime master:3 - tmpfs tmpfs rw\n", True),
        (b"", True),
    ],
    ids=[
        "remounted on the host",
        "spreads no more",
        "its own option",
        "mounted again",
        "another root",
        "another",
        "gone",
    ],
)
def test_what_the_host_changes_of_a_file_system_is_no_change_of_what_is_mounted_where(other, seen):
    before = b"1080 1057 254:0 /run/w/1 /run/pool ro,relatime master:3 - ext4 /dev/vda rw\n"
    assert (baseline._mounts(other) != baseline._mounts(before)) is seen


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_a_file_system_that_the_host_remounts_is_not_told_and_a_mount_after_that_is():
    remount = "libc.mount(None, b'/mnt', None, 32, b'size=32k') == 0"
    found, after = changed(
        f"assert alone and libc.mount(b'tmpfs', b'/mnt', b'tmpfs', 0, None) == 0\nbaseline = Baseline(zygote.pid)\nassert {remount}",
        "assert libc.mount(b'tmpfs', b'/mnt', b'tmpfs', 0, None) == 0",
    )
    assert found == [[]] * CHECKS
    assert after == ["mounts: not as before the job"]


def test_a_zygote_that_is_gone_is_no_clean_worker():
    found, _ = changed(
        "zygote.kill()\nzygote.wait()\nold = baseline.deviations\n"
        "def deviations():\n    try:\n        return old()\n    except (OSError, ProcessLookupError):\n        return ['gone']\n"
        "baseline.deviations = deviations"
    )
    assert all(found)


def test_every_kind_that_a_worker_tells_is_counted_by_its_name():
    told = {kind for kind, _ in CHANGES.values()} | {"mounts", "ipc", "code", "processes", "files", "parked"}
    assert told == RESIDUE
