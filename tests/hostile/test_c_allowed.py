"""An option of a template that allows something to jobs allows that and nothing else."""

import os

import pytest

from tests.hostile.alone import PRELUDE, one_worker
from tests.hostile.calls import CALLS, PROGRAM

pytestmark = pytest.mark.docker

RUN = """
import shutil, subprocess
def run(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout.strip(), done.stderr.strip()[-200:]
    except OSError as error:
        return errno.errorcode[error.errno]
"""
PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module")
def programs():
    with one_worker(allow=["subprocess"]) as it:
        yield it


@pytest.fixture(scope="module")
def processes():
    with one_worker(allow=["proc"]) as it:
        yield it


def test_a_job_that_may_run_programs_runs_those_of_the_image(programs, record):
    code = PRELUDE + RUN + f"def main():\n    return run({PYTHON!r}, '-c', 'print(6 * 7)')\n"
    assert programs.run(code).value == (0, "42", "")
    record("C38", "a program of the image, with allow: [subprocess]", "INERT", stopped_by=["job filter"],
           seen="runs; without the option EPERM")  # fmt: skip


def test_c38_none_of_its_own_making_however_it_is_started(programs, record):
    code = PRELUDE + RUN + f"""
def main():
    shutil.copy(os.path.realpath({PYTHON!r}), "program")
    with open("script", "w") as file:
        file.write("#!{PYTHON}\\nprint(1)")
    for name in ("program", "script"):
        os.chmod(name, 0o755)
    loader = "/lib64/ld-linux-x86-64.so.2"
    told = {{path: run(path, "-c", "pass") for path in ("./program", "./script", "/dev/shm/x", "/bin/sh")}}
    told["from above"] = run(os.path.join(os.pardir, os.path.basename(os.getcwd()), "program"), "-c", "pass")
    told["loader"] = run(loader, "./program", "-c", "pass")
    told["execveat"] = call(322, os.open("program", os.O_RDONLY), b"", None, None, 0x1000)
    told["memfd"] = call(319, b"x", 0)
    return told
"""  # fmt: skip
    seen = programs.run(code).value
    assert seen.pop("loader")[0] == 127  # it cannot map what is not executable
    assert set(seen.values()) <= {"EACCES", "ENOENT", "EPERM"}, seen
    record(
        "C38",
        "a program of the job's own making, with allow: [subprocess]",
        "ERR",
        stopped_by=["landlock", "container"],
        seen=seen,
    )


def test_a_program_that_a_job_starts_is_under_the_same_filter_and_holds_no_more(programs, record):
    permitted = {"execve"}
    inner = PROGRAM + f"import json\nprint(json.dumps(main({dict(CALLS)!r})))\n"
    code = PRELUDE + RUN + f"import json\ndef main(inner):\n    return run({PYTHON!r}, '-c', inner)\n"
    status, out, err = programs.run(code, inner).value
    assert status == 0, err
    answers = __import__("json").loads(out)
    let_through = {name for name, answer in answers.items() if answer not in {"EPERM", "ENOSYS"}}
    assert let_through == permitted
    held = "import os\\nfor n in range(256):\\n  try: os.fstat(n); print(n, end=' ')\\n  except OSError: pass\\nprint(os.listdir('/proc'))"
    status, out, _ = programs.run(
        PRELUDE + RUN + f"def main():\n    return run({PYTHON!r}, '-c', '''{held}''')\n"
    ).value
    assert (status, out) == (0, "0 1 2 ['self']"), "neither the channel nor a file of the runner's"
    record("C38", "a program started by a job: its system calls and descriptors", "ERR", stopped_by=["job filter", "seccomp"],
           seen=f"{len(answers) - 1} of {len(answers)} calls refused")  # fmt: skip


CORE = """
import os, resource
before = resource.getrlimit(resource.RLIMIT_CORE)
for lower in (resource.setrlimit, lambda *limit: resource.prlimit(0, *limit)):
    try: lower(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError): pass
print(before, resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_b30_a_program_keeps_the_limit_at_which_no_helper_of_the_host_takes_its_core(programs, outside, record):
    """A program is dumpable, and a core_pattern that is a pipe takes a core at every limit but 1: also at 0."""
    code = PRELUDE + RUN + f"def main(inner):\n    return run({PYTHON!r}, '-c', inner)\n"
    assert programs.run(code, CORE).value == (0, "(1, 1) (1, 1)", "")
    lowered = outside(
        f"def main():\n    exec({CORE!r}, globals())\n    return resource.getrlimit(resource.RLIMIT_CORE)\n"
    )
    assert lowered.value == "(0, 0)"
    record("B30", "the limit of core dumps set to 0, at which helpers of the host run, with allow: [subprocess]", "INERT",
           stopped_by=["job filter"], seen="(1, 1)", outside=lowered.value)  # fmt: skip


def test_d1_programs_that_a_job_leaves_running_are_gone_before_the_next(programs):
    code = PRELUDE + RUN + f"""
def main():
    for _ in range(5):
        subprocess.Popen([{PYTHON!r}, "-c", "import os, time; os.setsid(); os.fork(); time.sleep(600)"])
    return 1
"""  # fmt: skip
    first = programs.run(code)
    assert first.value == 1
    assert programs.honest().worker == first.worker
    view = programs.view()
    assert len(view.others) == 2, "the parked child and its init"


SELF = """
def main():
    told = {"listed": sorted(os.listdir("/proc")), "tasks": sorted(os.listdir("/proc/self/task"))}
    for name in ("self/mem", "self/environ", "self/maps", "1/status", "self/../1/status", "kcore", "kallsyms", "sys/kernel/hostname",
                 "sysrq-trigger", "net/unix", "self/cmdline"):
        def look():
            with open(f"/proc/{name}", "rb") as file:
                name == "self/mem" or file.read(10)
        told[name] = attempt(look)
    told["write"] = {name: attempt(lambda: os.close(os.open(f"/proc/{name}", os.O_WRONLY))) for name in
                     ("self/oom_score_adj", "self/uid_map", "self/setgroups", "self/comm", "self/timerslack_ns", "self/mem", "cpuinfo")}
    told["root"] = sorted(os.listdir("/proc/self/root/"))
    told["other"] = [pid for pid in range(1, 300) if os.path.exists(f"/proc/{pid}") or os.path.exists(f"/proc/self/root/proc/{pid}")]
    return told
"""


def test_c8_a_job_that_may_see_proc_sees_itself_only(processes, record):
    result = processes.run(PRELUDE + SELF)
    assert result.ok, result
    seen = result.value
    assert seen["listed"] == ["cpuinfo", "filesystems", "meminfo", "self", "stat", "uptime", "version"]
    assert seen["other"] == []
    assert len(seen["tasks"]) == 1
    refused = (
        "self/mem", "self/environ", "1/status", "self/../1/status", "kcore", "kallsyms", "sys/kernel/hostname",
        "sysrq-trigger", "net/unix",
    )  # fmt: skip
    assert {seen[name] for name in refused} <= {"EACCES", "ENOENT"}, seen
    assert set(seen["write"].values()) == {"EACCES"}, seen
    assert "proc" in seen["root"]
    record("C8", "/proc with allow: [proc]", "INERT", stopped_by=["namespaces", "landlock", "runner"],
           seen=f"{seen['listed']}; its own mountinfo names paths of the host")  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into another user's processes")
def test_d16_with_proc_allowed_nothing_of_the_runner_moves(processes, record):
    code = """
def main():
    told = set()
    for name in ("self/oom_score_adj", "self/task/1/oom_score_adj", "self/autogroup", "self/coredump_filter", "self/clear_refs"):
        def write():
            with open(f"/proc/{name}", "w") as file:
                file.write("0")
        told.add(attempt(write))
    return sorted(told)
"""
    with processes.unmoved() as run:
        seen = run(code).value
        assert set(seen) <= {"EACCES", "ENOENT"}
    record("D16", "the oom score and its like, with allow: [proc]", "ERR", stopped_by=["landlock", "runner"], seen=seen)
