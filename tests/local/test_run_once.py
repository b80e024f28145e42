"""run_once and LocalWorkers: the outcomes and the values of a pool, without a daemon."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import venv
from pathlib import Path

import numpy as np
import pytest

import pool
from pool import Limits, Outcome
from pool.client import job
from pool.client.local import LocalWorkers
from pool.client.results import to_result
from pool.errors import InvalidJobError, NoLockdownError
from tests.local.conftest import caller, granted
from tests.newcomer.place import blocks, promised
from tests.support.process import children

DOUBLE = "def main(x):\n    return x * 2"


@pytest.fixture(scope="module")
def run():
    """As run_once, with workers that are kept."""
    with LocalWorkers() as workers:

        def once(code, **options):
            try:
                return to_result(workers.run(job.build(code, options, pool="local")))
            except NoLockdownError as error:
                pytest.skip(error.message)

        yield once


def once(code, **options):
    try:
        return pool.run_once(code, **options)
    except NoLockdownError as error:
        pytest.skip(error.message)


def test_a_host_whose_own_tools_enter_all_namespaces_is_not_refused():
    """The other tests skip where run_once refuses the host. This one asks unshare of util-linux whether it is right."""
    apart = ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--ipc", "--net", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run(["unshare", *apart, "true"], check=False).returncode != 0:
        pytest.skip("this host refuses namespaces")
    try:
        assert pool.run_once("result = 6 * 7").value == 42
    except NoLockdownError as error:
        if error.fields["part"] in {"landlock", "seccomp filter", "noexec"}:
            pytest.skip(error.message)
        raise


def test_one_call_runs_a_job_and_leaves_nothing_behind():
    heard, before = [], children()
    code = "def main(x):\n    print('grüße', flush=True)\n    return x * 2"
    result = once(code, entry="main", args=[21], on_stdout=heard.append)
    assert (result.outcome, result.value, result.worker, result.start) == (Outcome.OK, 42, "local", "cold")
    assert "".join(heard) == result.stdout == "grüße\n"
    assert result.timings.total_ms >= result.timings.run_ms >= 0
    assert children() <= before


@pytest.mark.parametrize(
    ("code", "limits", "outcome"),
    [
        ("raise KeyError('close')", {}, "error"),
        ("while True: pass", {"wall_s": 1.0}, "timeout"),
        ("while True: pass", {"cpu_s": 1.0}, "timeout"),
        ("x = bytearray(1 << 30)", {"memory": "64m"}, "memory"),
        ("result = bytes(1 << 20)", {"result": "64k"}, "output"),
        (lambda: os._exit(3), {}, "crash"),
        ("import subprocess", {}, "rejected"),
    ],
)
def test_an_outcome_is_that_of_a_pool(run, code, limits, outcome):
    result = run(code, limits=Limits(**limits))
    assert result.outcome == outcome, result
    assert result.reason
    assert run(DOUBLE, entry="main", args=[2]).value == 4


def test_inputs_and_files_go_in_and_come_out(run):
    def work(number):
        Path("out/a").write_text("left")
        print(sys.stdin.read(), sys.argv[1:], Path("in.txt").read_text(), os.environ["NAME"], number)

    given = {"stdin": "said", "argv": ["--n"], "files": {"in.txt": b"sent"}, "env": {"NAME": "given"}}
    result = run(work, args=[3], **given)
    assert result.outcome == "ok", result
    assert (result.stdout, result.files) == ("said ['--n'] sent given 3\n", {"a": b"left"})


def test_a_callable_and_arrays_are_carried(run):
    assert run(lambda x: x.cumsum(), args=[np.arange(4)]).value.tolist() == [0, 1, 3, 6]


def test_a_value_is_graded_in_another_child(run):
    def work():
        os.environ["FORGED"] = "yes"
        return 20

    def grade(value, more):
        return [value + more, os.environ.get("FORGED")]

    assert run(work, grade=grade, grade_args=[1]).grade == [21, None]
    failed = run("1 / 0", grade="def grade(value): return 1")
    assert (failed.grade, failed.grade_error.message) == (None, "the job was not graded: it ended error")


def test_an_idle_worker_serves_the_next_job_and_a_larger_job_gets_a_larger_one(run):
    assert run(DOUBLE, entry="main", args=[2]).start == "parked"
    larger = run(DOUBLE, entry="main", args=[2], limits=Limits(memory="1g"))
    assert (larger.start, larger.value) == ("cold", 4)


def test_threads_share_the_workers(run):
    values = []
    threads = [
        threading.Thread(target=lambda n=n: values.append(run(DOUBLE, entry="main", args=[n]).value)) for n in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(300)
    assert sorted(values) == [0, 2, 4, 6]


def test_a_mistake_is_found_before_anything_is_started():
    with pytest.raises(InvalidJobError, match="args"):
        pool.run_once("result = 1", args=[1])


def test_the_page_prints_what_stands_behind_it():
    once("result = 1")
    (code,) = blocks("docs/local.md", "python")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs/local.md", "exec"), {"__name__": "guide"})
    assert printed.getvalue().splitlines() == promised(code)


def test_a_virtual_environment_below_tmp_works():
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        venv.create(home, with_pip=False, symlinks=True)
        with caller(None, python=f"{home}/bin/python") as found:
            answer = granted(found)("def main(x): return x * 2", 21, screened=True)
    assert (answer["outcome"], answer["value"]) == ("ok", 42), answer


def test_ctrl_c_ends_the_job_and_its_worker():
    code = "import pool, sys\npool.run_once('print(1, flush=True)\\nwhile True: pass', on_stdout=lambda text: print(text, flush=True))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        if process.stdout.readline() == "":
            assert "NoLockdownError" in process.stderr.read()
            pytest.skip("this host refuses the lockdown")
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.stderr.read()
    assert process.returncode != 0
