"""An OCI container's configuration: the same as a Docker Engine is asked for, control by control."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pool.assets import seccomp_profile
from pool.engines import bundle
from pool.engines.base import Mount
from pool.engines.lockdown import POLICY, SCRATCH, container_arguments
from pool.errors import EngineError
from tests.support.worker_spec import SPEC as ANY_SPEC

SPEC = replace(ANY_SPEC, apparmor="pool-worker")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "run/pool").mkdir(parents=True)
    return bundle.Root(path=tmp_path, entrypoint=("/usr/bin/python3", "/main.py"), environment=("LANG=C", "A=b"))


@pytest.fixture
def oci(root):
    return bundle.config(SPEC, root, seccomp=seccomp_profile(), cgroup="/pool-oci/x")


def _of_docker():
    """The request to the Docker Engine, control by control, with the names that both engines share."""
    asked = container_arguments(SPEC, seccomp_profile())
    host = asked["HostConfig"]
    return {
        "network": host["NetworkMode"] == "none",
        "root": host["ReadonlyRootfs"],
        "capabilities": host["CapDrop"] == ["ALL"] and "CapAdd" not in host,
        "no_new_privileges": "no-new-privileges" in host["SecurityOpt"],
        "seccomp": json.loads(host["SecurityOpt"][1].removeprefix("seccomp="))["syscalls"],
        "user": asked["User"],
        "memory": (host["Memory"], host["MemorySwap"]),
        "cpu": (host["CpuQuota"], host["CpuPeriod"]),
        "processes": host["PidsLimit"],
        "ulimits": {each["Name"]: (each["Soft"], each["Hard"]) for each in host["Ulimits"]},
        "scratch": host["Tmpfs"],
        "ipc": host["IpcMode"] == "private",
        "hostname": asked["Hostname"],
        "labels": asked["Labels"],
        "environment": {*asked["Env"]},
        "mounts": [(each["Source"], each["Target"], each["ReadOnly"]) for each in host["Mounts"]],
        "oom": (host["OomKillDisable"], host["OomScoreAdj"]),
        "masked": (host["MaskedPaths"], host["ReadonlyPaths"]),
        "devices": host["Devices"] == [],
        "cgroup": host["CgroupnsMode"] == "private",
        "apparmor": host["SecurityOpt"][2].removeprefix("apparmor="),
        "command": asked["Cmd"],
        "directory": asked["WorkingDir"],
    }


def _of_oci(config):
    process, linux, mounts = config["process"], config["linux"], config["mounts"]
    resources, namespaces = linux["resources"], {each["type"] for each in linux["namespaces"]}
    assert all(each.keys() == {"type"} for each in linux["namespaces"]), "a path would be another container's namespace"
    rules = [{k: v for k, v in rule.items() if k != "comment"} for rule in json.loads(seccomp_profile())["syscalls"]]
    assert linux["seccomp"]["syscalls"] == rules
    return {
        "network": "network" in namespaces,
        "root": config["root"]["readonly"],
        "capabilities": not any(process["capabilities"].values()) and len(process["capabilities"]) == 5,
        "no_new_privileges": process["noNewPrivileges"],
        "seccomp": json.loads(seccomp_profile())["syscalls"],
        "user": f"{process['user']['uid']}:{process['user']['gid']}",
        "memory": (resources["memory"]["limit"], resources["memory"]["swap"]),
        "cpu": (resources["cpu"]["quota"], resources["cpu"]["period"]),
        "processes": resources["pids"]["limit"],
        "ulimits": {
            each["type"].removeprefix("RLIMIT_").lower(): (each["soft"], each["hard"]) for each in process["rlimits"]
        },
        "scratch": {
            each["destination"]: ",".join(each["options"]) for each in mounts if each["destination"] in SCRATCH
        },
        "ipc": "ipc" in namespaces,
        "hostname": config["hostname"],
        "labels": config["annotations"],
        "environment": {each for each in process["env"] if each not in {"HOSTNAME=worker", "A=b"}},
        "mounts": [
            (each["source"], each["destination"], {"bind", "ro", "rprivate"} == {*each["options"]})
            for each in mounts
            if each["type"] == "bind"
        ],
        "oom": (resources["memory"].get("disableOOMKiller", False), process["oomScoreAdj"]),
        "masked": (linux["maskedPaths"], linux["readonlyPaths"]),
        "devices": resources["devices"] == [{"allow": False, "access": "rwm"}] and "devices" not in linux,
        "cgroup": "cgroup" in namespaces,
        "apparmor": process["apparmorProfile"],
        "command": process["args"][2:],
        "directory": process["cwd"],
    }


def test_both_engines_make_the_same_lockdown_of_the_same_spec(oci):
    assert _of_oci(oci) == _of_docker()


def test_every_control_of_the_policy_is_compared():
    by_the_engine = {"logs", "init", "restart"}  # nothing supervises an OCI container: see tests/docker
    assert POLICY.keys() - _of_docker().keys() == by_the_engine


def test_the_configuration_is_plain_values_and_differs_with_the_spec_only_where_it_must(root, oci):
    assert json.loads(json.dumps(oci)) == oci
    other = replace(SPEC, mounts=(), worker_id="w2", uid=70002, memory_bytes=1 << 20, command=("x",))
    changed = bundle.config(other, root, seccomp=seccomp_profile(), cgroup="/pool-oci/y")
    assert {key for key in oci if oci[key] != changed[key]} == {"process", "mounts", "annotations", "linux"}
    assert {key for key in oci["linux"] if oci["linux"][key] != changed["linux"][key]} == {"cgroupsPath", "resources"}
    assert {key for key in oci["process"] if oci["process"][key] != changed["process"][key]} == {"user", "args"}


def test_a_mount_point_that_the_shared_root_lacks_is_made_in_a_file_system_of_the_container(root, oci):
    destinations = [each["destination"] for each in oci["mounts"]]
    assert destinations.index("/datasets") < destinations.index("/datasets/prices.npy")
    place = next(each for each in oci["mounts"] if each["destination"] == "/datasets")
    assert (place["type"], "ro" in place["options"]) == ("tmpfs", True)
    known = replace(SPEC, mounts=(Mount(source=Path("/x"), target="/run/pool"),))
    mounts = bundle.config(known, root, seccomp=seccomp_profile(), cgroup="/x")["mounts"]
    assert {each["destination"] for each in mounts if each["type"] == "tmpfs"} == {"/dev", *SCRATCH}


def test_a_kernel_that_does_not_count_swap_is_asked_for_a_limit_on_memory_only(root):
    config = bundle.config(SPEC, root, seccomp=seccomp_profile(), cgroup="/x", swap=False)
    assert config["linux"]["resources"]["memory"] == {"limit": SPEC.memory_bytes}


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "SCMP_ARCH_X86_64"), ("aarch64", "SCMP_ARCH_AARCH64")])
def test_the_filter_is_that_of_the_machine_and_no_comment_reaches_the_runtime(machine, name):
    made = bundle.filter_of(seccomp_profile(), machine)
    assert made["architectures"] == [name]
    assert (made["defaultAction"], made["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    assert made["syscalls"]
    assert not any("comment" in rule for rule in made["syscalls"])


def test_another_architecture_and_a_rule_with_a_condition_are_refused():
    with pytest.raises(
        EngineError, match="this machine's architecture, s390x; it has SCMP_ARCH_AARCH64, SCMP_ARCH_X86"
    ):
        bundle.filter_of(seccomp_profile(), "s390x")
    profile = json.loads(seccomp_profile())
    profile["syscalls"].append({"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}})
    with pytest.raises(EngineError, match="a rule with includes"):
        bundle.filter_of(json.dumps(profile), "x86_64")
