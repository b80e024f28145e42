"""The container's arguments, as plain values. Whether they are in force is for tests/docker/test_lockdown_in_force.py."""

import json
from dataclasses import replace

import pytest

from pool.assets import seccomp_profile
from pool.engines import lockdown
from tests.support.worker_spec import SPEC


@pytest.fixture
def arguments():
    return lockdown.container_arguments(SPEC, '{"defaultAction": "SCMP_ACT_ERRNO"}')


def test_the_arguments_are_plain_values(arguments):
    assert json.loads(json.dumps(arguments)) == arguments


def test_nothing_but_the_image_and_the_limits_comes_from_the_spec(arguments):
    other = replace(
        SPEC, worker_id="w2", pool="p", owner="o", instance="i", image="x", uid=1, command=(), mounts=(), memory_bytes=1,
        cpus=9.0, processes=1, tmp_bytes=1, tmp_inodes=1, nofile=1,
    )  # fmt: skip
    changed = lockdown.container_arguments(other, '{"defaultAction": "SCMP_ACT_ERRNO"}')
    host, changed_host = arguments.pop("HostConfig"), changed.pop("HostConfig")
    assert _differs(arguments, changed) == {"Image", "Cmd", "User", "Labels"}
    assert _differs(host, changed_host) == {
        "Memory", "MemorySwap", "CpuQuota", "PidsLimit", "Ulimits", "Tmpfs", "Mounts",
    }  # fmt: skip


def _differs(one, other):
    assert one.keys() == other.keys()
    return {key for key in one if one[key] != other[key]}


def test_a_container_has_no_network_no_capability_and_a_read_only_root(arguments):
    host = arguments["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["CapDrop"] == ["ALL"]
    assert "CapAdd" not in host
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["SecurityOpt"] == ["no-new-privileges", 'seccomp={"defaultAction": "SCMP_ACT_ERRNO"}']


def test_memory_and_swap_together_are_the_limit(arguments):
    assert arguments["HostConfig"]["Memory"] == arguments["HostConfig"]["MemorySwap"] == 512 << 20


def test_cores_become_a_quota(arguments):
    host = arguments["HostConfig"]
    assert host["CpuQuota"] / host["CpuPeriod"] == 1.5
    tiny = lockdown.container_arguments(replace(SPEC, cpus=0.0001), "{}")["HostConfig"]
    assert tiny["CpuQuota"] == 1000, "the kernel refuses less"


def test_every_mount_is_read_only_and_private(arguments):
    (mount,) = arguments["HostConfig"]["Mounts"]
    assert mount["Source"] == "/srv/prices.npy"
    assert mount["Target"] == "/datasets/prices.npy"
    assert mount["ReadOnly"] is True
    assert mount["BindOptions"] == {"Propagation": "rprivate", "NonRecursive": True}


def test_a_runtime_is_named_only_if_the_spec_names_one(arguments):
    assert "Runtime" not in arguments["HostConfig"]
    assert lockdown.container_arguments(replace(SPEC, runtime="runsc"), "{}")["HostConfig"]["Runtime"] == "runsc"


def test_a_runtime_with_a_kernel_of_its_own_has_room_for_its_threads(arguments):
    own = lockdown.container_arguments(replace(SPEC, runtime="runsc"), "{}")["HostConfig"]
    assert own["PidsLimit"] == SPEC.processes + lockdown.OWN_KERNEL_PROCESSES
    assert (
        lockdown.container_arguments(replace(SPEC, runtime="crun"), "{}")["HostConfig"]["PidsLimit"] == SPEC.processes
    )
    assert arguments["HostConfig"]["PidsLimit"] == SPEC.processes


def test_what_is_masked_is_named_here_and_not_left_to_the_engine(arguments):
    host = arguments["HostConfig"]
    assert (tuple(host["MaskedPaths"]), tuple(host["ReadonlyPaths"])) == (
        lockdown.MASKED_PATHS,
        lockdown.READ_ONLY_PATHS,
    )
    # Engines mask these by default, so a list of our own must have them too.
    assert {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware"} <= set(
        lockdown.MASKED_PATHS
    )
    assert not set(lockdown.MASKED_PATHS) & set(lockdown.READ_ONLY_PATHS)


def test_no_process_may_raise_its_priority_dump_core_or_lock_memory(arguments):
    limits = {each["Name"]: (each["Soft"], each["Hard"]) for each in arguments["HostConfig"]["Ulimits"]}
    assert limits.pop("nofile") == (SPEC.nofile, SPEC.nofile)
    assert limits.pop("sigpending") == (256, 256)
    assert limits.pop("core") == (1, 1)  # less than any dump, and a pipe does not get one either
    assert limits == dict.fromkeys(("memlock", "msgqueue", "nice", "rtprio"), (0, 0))


def test_nothing_of_the_daemons_environment_is_passed_on(arguments, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("PATH", "/opt/elsewhere")
    assert lockdown.container_arguments(SPEC, '{"defaultAction": "SCMP_ACT_ERRNO"}') == arguments
    assert "PATH=/usr/bin" in arguments["Env"]


def test_two_runs_of_a_daemon_never_use_the_same_container_name():
    assert lockdown.container_name(SPEC) == "pool-run1-w1"
    assert lockdown.container_name(replace(SPEC, instance="run2")) != lockdown.container_name(SPEC)


# ---- seccomp -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def profile():
    return json.loads(seccomp_profile())


def _rules(profile, name):
    return [rule for rule in profile["syscalls"] if name in rule["names"]]


def test_a_system_call_that_is_not_listed_fails_with_eperm(profile):
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)


def test_only_native_system_calls_are_allowed(profile):
    assert all(not entry["subArchitectures"] for entry in profile["archMap"])


@pytest.mark.parametrize(
    "name",
    [
        "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "bpf", "perf_event_open",
        "userfaultfd", "io_uring_setup", "keyctl", "add_key", "mq_open", "shmget", "semget", "msgget",
        "memfd_create", "init_module", "kexec_load", "open_by_handle_at", "fsopen", "move_mount", "chroot",
        "pivot_root", "inotify_init1", "mlock", "mknodat", "setuid", "setgid", "chown", "swapon", "reboot", "syslog",
    ],
)  # fmt: skip
def test_what_a_job_has_no_use_for_is_not_listed(profile, name):
    assert _rules(profile, name) == []


def test_clone3_is_not_there_so_that_threads_fall_back_to_clone(profile):
    (rule,) = _rules(profile, "clone3")
    assert (rule["action"], rule["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)


NEW_NAMESPACES = {
    "mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000,
    "net": 0x40000000,
}  # fmt: skip
NEW_TIME_NAMESPACE = 0x80
ZYGOTE_NAMESPACES = {NEW_NAMESPACES[name] for name in ("user", "pid", "mount", "ipc", "net")}


@pytest.mark.parametrize(
    ("name", "index", "allowed"),
    [
        ("socket", 0, {1}),
        ("socketpair", 0, {1}),
        ("personality", 0, {0, 0xFFFFFFFF}),
        ("prlimit64", 0, {0}),
        ("ioctl", 1, {0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451}),
        ("setns", 1, ZYGOTE_NAMESPACES),
        ("prctl", 0, {1, 2, 3, 4, 15, 16, 21, 23, 24, 27, 28, 36, 38, 39, 47, 0x53564D41}),
    ],
)
def test_an_argument_is_one_of_a_few_values(profile, name, index, allowed):
    conditions = [rule["args"] for rule in _rules(profile, name)]
    assert all(len(args) == 1 and args[0]["index"] == index and args[0]["op"] == "SCMP_CMP_EQ" for args in conditions)
    assert {args[0]["value"] for args in conditions} == allowed


def test_no_rule_has_two_conditions(profile):
    """For the runtime two conditions on one argument are an OR: "not this and not that" would allow everything."""
    assert {len(rule["args"]) for rule in profile["syscalls"] if "args" in rule} == {1}


@pytest.mark.parametrize("name", ["clone", "unshare"])
def test_a_namespace_is_made_only_if_the_zygote_needs_it(profile, name):
    refused = [flag for flag in NEW_NAMESPACES.values() if not _takes(profile, name, flag)]
    assert refused == [NEW_NAMESPACES["cgroup"], NEW_NAMESPACES["uts"]]
    assert _takes(profile, name, sum(ZYGOTE_NAMESPACES))
    assert not _takes(profile, "unshare", NEW_TIME_NAMESPACE)


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (0x1200011, "fork"),
        (0x3D0F00, "thread"),
        (0x4111, "vfork"),
        (0x7D0F00, "thread of musl"),
        (0x1011, "with pidfd"),
    ],
)
def test_processes_and_threads_are_cloned_as_c_libraries_do_it(profile, flags, what):
    assert _takes(profile, "clone", flags), what


@pytest.mark.parametrize(("flag", "what"), [(0x8000, "a sibling"), (0x2000, "traced"), (0x80000000, "shared io")])
def test_no_other_flag_of_clone_is_taken(profile, flag, what):
    assert not _takes(profile, "clone", 17 | flag), what


def _takes(profile, name, flags):
    (rule,) = _rules(profile, name)
    (condition,) = rule["args"]
    assert (condition["op"], condition["index"], condition["valueTwo"]) == ("SCMP_CMP_MASKED_EQ", 0, 0)
    return flags & condition["value"] == 0


def test_a_priority_is_set_in_name_only(profile):
    (rule,) = _rules(profile, "sched_setscheduler")
    assert (rule["action"], rule["errnoRet"]) == ("SCMP_ACT_ERRNO", 0)


def test_no_name_is_listed_twice_unless_its_argument_differs(profile):
    plain = [name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]]
    assert len(plain) == len(set(plain))
    conditional = {name for rule in profile["syscalls"] if "args" in rule for name in rule["names"]}
    assert not conditional & set(plain), "an unconditional rule would win"


def test_a_job_maps_no_file_of_the_daemon_where_it_would_see_its_path_or_the_kernel_is_another_one():
    assert lockdown.maps_files(None, ())
    assert lockdown.maps_files("runc", ("subprocess",))
    assert not lockdown.maps_files(None, ("proc",))
    assert not lockdown.maps_files("runsc", ())
