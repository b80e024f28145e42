"""The parts of the local engine that need no worker."""

import json
import os
import sys
from pathlib import Path

import pytest
from runner import seccomp, syscalls
from structlog.testing import capture_logs

from pool import assets
from pool.client import local
from pool.config.settings import SandboxSettings, Settings, Template, TemplateLimits
from pool.daemon.engine_choice import require_supported
from pool.errors import ConfigError, EngineError, NoLockdownError
from pool.local import cgroups
from pool.local.layout import layout
from pool.local.profile import outer_filter
from pool.local.refusals import of_missing, refusal
from tests.unit.test_seccomp_filter import instructions
from tests.unit.test_seccomp_filter import run as call

PROFILE = assets.seccomp_profile()
EPERM, ENOSYS, NOTHING = seccomp.fail(1), seccomp.fail(38), seccomp.fail(0)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_outer_filter_answers_each_call_as_the_profile_says(machine):
    steps, numbers = instructions(outer_filter(PROFILE, machine)), syscalls.numbers(machine)
    arch = syscalls.audit_arch(machine)

    def answer(name, *arguments):
        return call(steps, numbers[name], arguments, arch=arch)

    rules = json.loads(PROFILE)["syscalls"]
    named = {name for rule in rules for name in rule["names"]}
    free = {
        name for rule in rules for name in rule["names"] if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule
    }
    assert {answer(name) for name in free & numbers.keys()} == {seccomp.ALLOW}
    assert {answer(name) for name in numbers.keys() - named} == {EPERM}
    assert (answer("clone3"), answer("sched_setscheduler")) == (ENOSYS, NOTHING)
    assert (answer("socket", 1), answer("socket", 2)) == (seccomp.ALLOW, EPERM)
    assert (answer("unshare", 0x10000000), answer("unshare", 0x04000000)) == (seccomp.ALLOW, EPERM)
    assert (answer("personality", 0xFFFFFFFF), answer("personality", 8)) == (seccomp.ALLOW, EPERM)


@pytest.mark.parametrize(
    "change",
    [
        {"defaultAction": "SCMP_ACT_ALLOW"},
        {
            "syscalls": [
                {"names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_LT"}]}
            ]
        },
    ],
)
def test_a_profile_that_cannot_be_expressed_is_refused(change):
    with pytest.raises(ValueError, match="profile"):
        outer_filter(json.dumps(json.loads(PROFILE) | change))


@pytest.mark.parametrize(
    ("switch", "value", "remedy"),
    [
        ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
        ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor_restrict_unprivileged_userns=0"),
        ("kernel/unprivileged_userns_clone", "1", "run it on the host"),
    ],
)
def test_a_refusal_names_the_part_and_the_switch(tmp_path, switch, value, remedy):
    path = tmp_path / switch
    path.parent.mkdir(parents=True)
    path.write_text(f"{value}\n")
    error = refusal("user namespace", "Operation not permitted", sysctls=tmp_path)
    assert isinstance(error, NoLockdownError)
    assert isinstance(error, EngineError)
    assert (error.fields["part"], error.fields["why"]) == ("user namespace", "Operation not permitted")
    assert remedy in error.message


def test_what_the_runner_misses_is_refused_with_its_remedy(tmp_path):
    error = of_missing(("landlock: this kernel has none", "noexec: no"), sysctls=tmp_path)
    assert error.fields["part"] == "landlock"
    assert "and 1 more" in error.message
    assert "lsm=landlock" in error.message


@pytest.fixture
def installed(monkeypatch):
    """A Python in /usr with a virtual environment in the directory that the test names."""
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(sys, "base_exec_prefix", "/usr")
    return lambda prefix: monkeypatch.setattr(sys, "prefix", str(prefix))


def test_a_worker_sees_the_python_and_the_runner_and_no_home(tmp_path, installed):
    installed("/srv/venv")
    found = layout(uid=1234, link=tmp_path)
    targets = {target for _, target in found.binds}
    assert {"/usr", "/srv/venv", "/opt/pool/runner", "/opt/pool/pool/wire", "/run/pool"} <= targets
    assert not targets & {"/", "/home", "/root", "/etc", "/var", "/tmp", str(Path.home())}
    assert ":1234:" in found.files["/etc/passwd"]


def test_a_virtual_environment_that_the_scratch_space_would_hide_is_shown_elsewhere(tmp_path, installed, monkeypatch):
    libraries = tmp_path / "site-packages"
    libraries.mkdir()
    monkeypatch.setattr(sys, "path", [str(libraries)])
    monkeypatch.setattr("pool.local.layout._OWN", (f"{tmp_path}/",))
    installed(tmp_path / "venv")
    found = layout(uid=1, link=tmp_path)
    assert (str(libraries), "/opt/libraries/0") in found.binds
    assert found.imports == ("/opt/libraries/0",)
    assert found.program == os.path.realpath(sys.executable)


@pytest.mark.parametrize("place", ["/srv/somebody", "/", "/root", "/tmp/python"])
def test_a_python_in_a_place_that_a_job_must_not_see_is_refused(tmp_path, installed, monkeypatch, place):
    monkeypatch.setenv("HOME", "/srv/somebody")
    installed("/srv/venv")
    monkeypatch.setattr(sys, "base_prefix", place)
    with pytest.raises(NoLockdownError, match="virtual environment"):
        layout(uid=1, link=tmp_path)


def test_a_cgroup_of_version_1_has_every_limit_or_is_not_made(tmp_path):
    for controller in ("memory", "pids", "cpu", "cpuacct"):
        (tmp_path / controller / cgroups._own(controller)).mkdir(parents=True)
    with pytest.raises(FileNotFoundError):  # in a plain directory no file of a limit appears
        cgroups.make("w", memory_bytes=1 << 28, cpus=1.0, processes=32, root=tmp_path)
    assert not list(tmp_path.glob("**/w"))


def test_a_job_that_names_no_limit_gets_the_defaults_of_a_pool():
    assert {
        name: getattr(local.DEFAULTS, name) for name in TemplateLimits.model_fields
    } == TemplateLimits().model_dump()


def test_a_daemon_says_who_carries_out_a_local_fallback_and_that_it_has_no_local_engine():
    with capture_logs() as logs:
        require_supported(Settings(sandbox=SandboxSettings(fallback="local")))
    assert "SANDBOX_FALLBACK=local" in logs[0]["event"]
    with pytest.raises(ConfigError, match="run_once"):
        require_supported(Settings(pools={"default": Template(engine="local")}))
