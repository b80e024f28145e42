"""./dev: its help, its errors and the summary of the tests. What it installs and starts is not tested here."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = {"setup", "demo", "test", "lint", "bench", "chaos", "soak", "corpus", "fuzz", "update", "vm", "stop"}

NOBODY = 65534


def dev(
    *arguments: str, root: Path = ROOT, user: int | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    return subprocess.run(
        ["bash", root / "dev", *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd="/", user=user, env={**own, **environ},
    )  # fmt: skip


#: The Python of an environment in which nothing can be imported.
NO_ENGINE = '#!/bin/sh\n[ -z "$2" ]\n'

#: The Python of an environment in which an Engine answers, one test without Docker fails, and those with Docker pass.
ONE_FAILS = """#!/bin/sh
case "$*" in
  *"not docker and"*)
    echo "tests/unit/test_a.py::test_b[x y]" >"$POOL_FAILED_TESTS"
    echo "=== 1 failed, 2 passed in 0.1s ==="
    exit 1 ;;
  *pytest*) echo "=== 3 passed in 0.2s ===" ;;
esac
"""


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A checkout that anybody may use, whose environment is up to date but finds no Docker Engine."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve()
        for name in ("dev", "pyproject.toml"):
            shutil.copy(ROOT / name, root)
        for name in ("locks", "tools"):
            shutil.copytree(ROOT / name, root / name)
        version = "{}.{}".format(*sys.version_info)
        (root / ".venv/lib" / f"python{version}").mkdir(parents=True)
        (root / ".venv/bin").mkdir()
        write_python(root, NO_ENGINE)
        (root / ".cache").mkdir()
        stamp = "source tools/environment.sh; stamp demo test >.venv/.installed"
        subprocess.run(["bash", "-euc", stamp], check=True, cwd=root)
        for path in (root, root / ".cache"):
            path.chmod(0o777)
        yield root


def write_python(root: Path, script: str) -> None:
    for name in ("python", "pool-admin"):
        path = root / ".venv/bin" / name
        path.write_text(script)
        path.chmod(0o755)


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",)])
def test_dev_alone_explains_every_command(arguments):
    told = dev(*arguments)
    assert told.returncode == 0
    assert set(re.findall(r"^  (\w+)  ", told.stdout, re.MULTILINE)) == COMMANDS


def test_an_unknown_command_is_wrong_usage():
    told = dev("tset")
    assert told.returncode == 2
    assert "there is no command tset" in told.stderr


@pytest.mark.parametrize("script", ["dev", ".ci/run", *(path.name for path in (ROOT / "tools").glob("*.sh"))])
def test_the_scripts_parse(script):
    path = ROOT / script if (ROOT / script).exists() else ROOT / "tools" / script
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


def test_stop_stops_nothing_that_it_did_not_start(checkout):
    (checkout / ".cache/dockerd.pid").write_text(f"{os.getpid()}\n")  # alive, and no dockerd
    told = dev("stop", root=checkout)
    assert told.returncode == 0
    assert "No Docker Engine started by ./dev is running" in told.stdout


def test_an_engine_elsewhere_that_does_not_answer_is_named(checkout):
    told = dev("setup", root=checkout, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert told.returncode == 1
    assert "DOCKER_HOST=unix:///nowhere/docker.sock; start it" in told.stderr


def test_who_may_not_install_is_told_what_to_ask_for(checkout):
    told = dev("setup", root=checkout, user=NOBODY if os.geteuid() == 0 else None)
    assert told.returncode == 1
    assert "As root:" in told.stderr or "as root:" in told.stderr
    assert "usermod -aG docker" in told.stderr


NO_INDEX = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}


def test_where_uv_cannot_be_installed_the_error_says_what_to_do(checkout):
    told = dev("lint", root=checkout, PATH=without_uv(), **NO_INDEX)
    assert told.returncode == 1
    assert "uv, which installs everything else, cannot be installed" in told.stderr
    assert "PIP_INDEX_URL=URL ./dev" in told.stderr


def test_where_uv_cannot_be_installed_the_one_on_the_path_is_used(checkout, tmp_path):
    (tmp_path / "uv").write_text('#!/bin/sh\necho "the arguments: $*"\nexit 7\n')
    (tmp_path / "uv").chmod(0o755)
    told = dev("lint", root=checkout, PATH=f"{tmp_path}:{without_uv()}", **NO_INDEX)
    assert f"Going on with {tmp_path}/uv" in told.stdout
    assert "the arguments: pip sync" in told.stderr


def without_uv() -> str:
    places = os.environ["PATH"].split(":")
    return ":".join(place for place in places if not Path(place, "uv").exists())


# ---- ./dev test ----


def test_both_parts_of_the_tests_run_and_the_last_lines_say_how_to_run_what_failed(checkout):
    write_python(checkout, ONE_FAILS)
    told = dev("test", root=checkout)
    assert told.returncode == 1
    assert told.stdout.splitlines()[-9:] == [
        "==> Result",
        "    without Docker: 1 failed, 2 passed in 0.1s",
        "    with Docker:    3 passed in 0.2s",
        "",
        "failed:",
        "    tests/unit/test_a.py::test_b[x y]",
        "",
        "to run only what failed:",
        r"    ./dev test tests/unit/test_a.py::test_b\[x\ y\]",
    ]


@pytest.mark.parametrize(("options", "profile"), [((), "fixed"), (("--random",), "random")])
def test_property_tests_have_the_same_examples_in_every_run_unless_random_ones_are_asked_for(
    checkout, options, profile
):
    write_python(checkout, '#!/bin/sh\ncase "$*" in *pytest*) echo "$*" ;; esac\n')
    told = dev("test", *options, root=checkout)
    assert set(re.findall(r"--hypothesis-profile=(\w+)", told.stdout)) == {profile}


def test_no_part_of_the_tests_leaves_out_a_directory_with_a_test_of_its_own():
    found = re.findall(r" elsewhere=\((.+)\)", (ROOT / "tools/tests.sh").read_text())
    quick, docker = ({*names.split()} - {"corpus"} for names in found)  # whose tests belong to neither part
    for path in ROOT.glob("tests/*/test_*.py"):
        name = path.parent.name
        needs_docker = name == "docker" or "pytest.mark." + "docker" in path.read_text()
        assert name not in (docker if needs_docker else quick), path


def test_a_part_that_fails_without_a_test_is_named_with_its_log(checkout):
    write_python(checkout, ONE_FAILS.replace('echo "tests/unit/test_a.py::test_b[x y]" >"$POOL_FAILED_TESTS"', ""))
    told = dev("test", root=checkout)
    assert told.returncode == 1
    assert "pytest ended with status 1 and named no test; see .cache/test-quick.log" in told.stdout


def test_when_all_tests_pass_the_status_is_0(checkout):
    write_python(checkout, "#!/bin/sh\necho '=== 3 passed in 0.2s ==='\n")
    told = dev("test", root=checkout)
    assert told.returncode == 0
    assert told.stdout.splitlines()[-1] == "    with Docker:    3 passed in 0.2s"


def test_arguments_may_select_tests_of_one_part_only_but_not_none_at_all(checkout):
    write_python(checkout, '#!/bin/sh\ncase "$*" in *"not docker and"*) exit 5 ;; esac\n')
    assert dev("test", "-k", "name", root=checkout).returncode == 0
    assert dev("test", root=checkout).returncode == 1
    write_python(checkout, '#!/bin/sh\ncase "$*" in *pytest*) exit 5 ;; esac\n')
    assert dev("test", "-k", "name", root=checkout).returncode == 5


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--newest", "--oldest"), "--newest and --oldest exclude each other"),
        (("--clock",), "--clock takes an offset like +1y or -30d, not ''"),
        (("--clock", "tomorrow"), "--clock takes an offset like +1y or -30d, not 'tomorrow'"),
    ],
)
def test_wrong_options_of_test_are_refused_before_anything_is_installed(checkout, arguments, problem):
    told = dev("test", *arguments, root=checkout)
    assert told.returncode == 1
    assert problem in told.stderr
    assert "==>" not in told.stdout


def test_the_ids_of_failed_tests_are_written_where_the_summary_reads_them(tmp_path):
    test, ids = tmp_path / "test_some.py", tmp_path / "ids"
    test.write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('x', ['a - b', 'c'])\n"
        "def test_x(x): assert x == 'c'\n"
        "def test_y(missing): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", os.devnull]
    environ = os.environ | {"POOL_FAILED_TESTS": str(ids)}
    subprocess.run([*command, "--rootdir", tmp_path, test], cwd=ROOT, env=environ, capture_output=True, check=False)
    assert sorted(ids.read_text().splitlines()) == ["test_some.py::test_x[a - b]", "test_some.py::test_y"]


# ---- ./dev bench ----


def test_bench_refuses_to_compare_with_a_file_that_is_not_there(checkout):
    told = dev("bench", "--compare", "nowhere.json", root=checkout)
    assert told.returncode == 1
    assert "--compare takes the file of an earlier run, and 'nowhere.json' is none" in told.stderr
