"""`pool-daemon`: its options, and its errors for a configuration or an engine that it cannot use."""

import os
import subprocess
import tempfile
from pathlib import Path

from pool import config
from pool._version import __version__
from pool.assets import example_config
from tests.support.process import python


def pool_daemon(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "pool.cli.daemon", *arguments, env={**os.environ, **environment})


def test_the_configuration_that_comes_with_it_passes_the_check():
    assert pool_daemon("--check", "--config", str(example_config())).stdout == "ok\n"


def test_the_configuration_may_be_named_in_the_environment(tmp_path):
    file = tmp_path / "pool.yaml"
    file.write_text("pools: {default: {size: {min: 1, max: 2}}}\n")
    assert pool_daemon("--check", POOL_CONFIG=str(file)).returncode == 0
    file.write_text("polls: {}\n")
    assert pool_daemon("--check", POOL_CONFIG=str(file)).returncode == 1


def test_every_problem_of_a_configuration_is_on_a_line_of_its_own(tmp_path):
    file = tmp_path / "pool.yaml"
    file.write_text("pools: {default: {size: {min: -1}, limits: {wall_s: soon}}}\nextra: 1\n")
    for arguments in (["--check"], []):
        result = pool_daemon("--config", str(file), *arguments)
        assert result.returncode == 1
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        assert len(lines) == 3, lines
        assert all(line.startswith("error: ") for line in lines)
        for key in ("min", "wall_s", "extra"):
            assert any(key in line for line in lines)


def test_the_printed_configuration_is_complete_and_can_be_loaded_again(tmp_path):
    file = tmp_path / "pool.yaml"
    file.write_text("daemon: {submit_mode: 0640}\npools: {fast: {screen: off, limits: {memory: 1g}, apparmor: null}}\n")
    printed = pool_daemon("--print-config", "--config", str(file))
    assert printed.returncode == 0
    assert config.loads(printed.stdout, environ={}) == config.load(file, {})
    assert "boot_timeout_s: 60.0" in printed.stdout


def test_a_configuration_file_that_is_not_there_is_one_line():
    result = pool_daemon("--check", "--config", "/no/such/pool.yaml")
    assert result.returncode == 1
    assert "/no/such/pool.yaml" in result.stderr
    assert result.stderr.count("\n") == 1


def test_it_tells_its_version():
    assert pool_daemon("--version").stdout == f"{__version__}\n"


def test_an_engine_that_does_not_answer_is_one_line_with_what_to_do():
    with tempfile.TemporaryDirectory(prefix="p.", dir="/tmp") as home:  # short: socket paths go below it
        file = Path(home, "pool.yaml")
        file.write_text(
            f"daemon: {{run_dir: {home}/run, state_dir: {home}/state}}\npools: {{default: {{engine: docker}}}}\n"
        )
        result = pool_daemon("--config", str(file), DOCKER_HOST=f"unix://{home}/no-docker.sock")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: the Docker Engine cannot be reached")
    assert "Traceback" not in result.stderr


def test_wrong_usage_ends_2():
    assert pool_daemon("--nonsense").returncode == 2
