"""The findings about imaginary hosts: each finding where there is a problem, and where there is none."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pool.config import loads
from pool.doctor import TITLES, Host, HostFinding, Wanted, examine, wanted_by
from pool.doctor.facts import Oci
from tests.unit.hosts import ADMIN, RUN_DIR, SOCKET, a_host

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def the(name: str, host: Host, wanted: Wanted | None = None) -> HostFinding:
    return next(each for each in examine(host, wanted or Wanted()) if each.id == name)


def test_a_host_with_which_nothing_is_wrong_has_nothing_but_ok():
    assert {each.id: each.verdict for each in examine(a_host())} == dict.fromkeys(TITLES, "ok")


@pytest.mark.parametrize(
    "host", [a_host(), a_host(docker=None), a_host(socket=None, run_dir=None), a_host(kernel={"release": "?"})]
)
def test_there_is_one_finding_for_each_id_whatever_the_host(host):
    findings = examine(host)
    assert [each.id for each in findings] == list(TITLES)
    assert all(each.title == TITLES[each.id] for each in findings)
    assert all(each.seen for each in findings)
    assert all(bool(each.advice) == (each.verdict != "ok") for each in findings)


KERNELS: list[tuple[str, str, dict[str, Any], str]] = [
    ("kernel", "problem", {"release": "5.4.0-150-generic"}, "5.10"),
    ("kernel", "unknown", {"release": "strange"}, "5.10"),
    ("cgroups", "warning", {"cgroups": "v1"}, "unified_cgroup_hierarchy"),
    ("cgroups", "warning", {"cgroups": "hybrid"}, "unified_cgroup_hierarchy"),
    ("cgroups", "problem", {"cgroups": "none"}, "mount"),
    ("cgroup-controllers", "problem", {"controllers": frozenset({"cpu", "pids"})}, "cgroup_enable=memory"),
    ("user-namespaces", "unknown", {"namespaces": None}, "workers"),
    (
        "user-namespaces", "problem", {"namespaces": "ENOSPC", "max_user_namespaces": 0},
        "sysctl user.max_user_namespaces=",
    ),
    ("user-namespaces", "problem", {"namespaces": "EPERM", "userns_clone": 0}, "unprivileged_userns_clone=1"),
    ("user-namespaces", "problem", {"namespaces": "EPERM", "apparmor_userns": 1}, "load the profile pool-worker"),
    ("user-namespaces", "problem", {"namespaces": "EPERM"}, "CONFIG_USER_NS"),
    ("seccomp", "problem", {"seccomp": frozenset()}, "CONFIG_SECCOMP_FILTER"),
    ("landlock", "warning", {"landlock": 0}, "lsm=landlock"),
    ("landlock", "warning", {"landlock": 5}, "6.12"),
    ("landlock", "unknown", {"landlock": None}, "outside"),
    ("mandatory-access", "warning", {"apparmor": False}, "security=apparmor"),
    ("apparmor-profile", "warning", {"profiles": frozenset({"docker-default"})}, "apparmor_parser"),
    ("apparmor-profile", "warning", {"profiles": frozenset()}, "apparmor_parser"),
    ("apparmor-profile", "unknown", {"profiles": None}, "as root"),
    ("ptrace-scope", "warning", {"yama": 0}, "ptrace_scope=1"),
    ("ptrace-scope", "warning", {"yama": None}, "ptrace_scope=1"),
    ("io-uring", "warning", {"io_uring": 0}, "io_uring_disabled=2"),
    ("unprivileged-bpf", "warning", {"bpf": 0}, "unprivileged_bpf_disabled=1"),
    ("overcommit", "warning", {"overcommit": 2}, "overcommit_memory=0"),
    ("swap", "warning", {"swap": True}, "encrypt"),
    ("core-dumps", "warning", {"core_pattern": "|/usr/share/apport/apport %p"}, "core_pattern=core"),
]  # fmt: skip


ENGINES: list[tuple[str, str, dict[str, Any], str]] = [
    ("engine", "problem", {"version": "19.03.15"}, "20.10"),
    ("engine", "unknown", {"version": "dev"}, "20.10"),
    ("engine-storage", "warning", {"storage": "vfs"}, "storage-driver"),
    ("engine-live-restore", "warning", {"live_restore": False}, '"live-restore": true'),
    ("engine-seccomp", "problem", {"options": frozenset({"apparmor"})}, "built with seccomp"),
    ("docker-endpoint", "problem", {"warnings": ("API is accessible on http://0.0.0.0:2375",)}, "hosts"),
]


FILES: list[tuple[str, str, dict[str, Any], str]] = [
    ("docker-socket", "problem", {"socket": replace(SOCKET, mode=0o666)}, "chmod 0660 /run/docker.sock"),
    ("docker-socket", "problem", {"socket": replace(SOCKET, loose=("/srv",))}, "chmod o-w /srv"),
    ("docker-socket", "warning", {"socket": replace(SOCKET, members=("ann", "bob"))}, "ann, bob: whoever is in group"),
    ("docker-socket", "unknown", {"socket": None}, "engine"),
    ("docker-endpoint", "problem", {"endpoint": "tcp://10.0.0.7:2375", "socket": None}, "TLS"),
    ("run-dir", "problem", {"run_dir": replace(RUN_DIR, mode=0o777)}, "chmod 0711 /run/pool"),
    ("run-dir", "problem", {"run_dir": replace(RUN_DIR, mode=0o731)}, "chmod 0711 /run/pool"),
    ("run-dir", "problem", {"run_dir": replace(RUN_DIR, loose=("/run",))}, "chmod o-w /run"),
    ("run-dir", "problem", {"admin_socket": replace(ADMIN, mode=0o666)}, "chmod 0600 /run/pool/admin.sock"),
    ("run-dir", "unknown", {"run_dir": None}, "start the daemon"),
]


PROBLEMS = [
    *((name, verdict, {"kernel": kernel}, advice) for name, verdict, kernel, advice in KERNELS),
    *((name, verdict, {"docker": docker}, advice) for name, verdict, docker, advice in ENGINES),
    *FILES,
]


@pytest.mark.parametrize(("name", "verdict", "changes", "advice"), PROBLEMS)
def test_problems_of_a_kernel_an_engine_and_of_rights_are_found_with_a_remedy(name, verdict, changes, advice):
    finding = the(name, a_host(**changes))
    assert finding.verdict == verdict
    assert advice in finding.advice


def test_every_finding_has_a_host_on_which_it_is_not_ok():
    apart = {
        "engine-oci",
        "engine-runtimes",
        "engine-users",
        *(name for name in TITLES if name.startswith("advisories-")),
    }
    assert {name for name, *_ in PROBLEMS} | apart == set(TITLES)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("docker-socket", {"socket": replace(SOCKET, members=("ann",), mode=0o600)}),
        ("docker-socket", {"socket": None, "endpoint": "ssh://there"}),
        ("docker-endpoint", {"endpoint": "tcp://10.0.0.7:2376", "tls": True, "socket": None}),
        ("docker-endpoint", {"endpoint": "ssh://there", "socket": None}),
        ("run-dir", {"admin_socket": None}),
        ("mandatory-access", {"kernel": {"apparmor": False, "selinux": True}}),
        ("apparmor-profile", {"kernel": {"apparmor": False, "profiles": frozenset()}}),
        ("io-uring", {"kernel": {"io_uring": None}}),
        ("engine-storage", {"docker": {"storage": "overlayfs"}}),
    ],
)
def test_what_is_as_good_is_ok(name, changes):
    assert the(name, a_host(**changes)).verdict == "ok"


@pytest.mark.parametrize(
    ("options", "seen"),
    [({"seccomp"}, "root of the host"), ({"seccomp", "rootless"}, "rootless"), ({"seccomp", "userns"}, "remapped")],
)
def test_the_user_that_root_of_a_container_is_on_the_host_is_reported(options, seen):
    assert seen in the("engine-users", a_host(docker={"options": frozenset(options)})).seen


def test_swap_that_the_engine_cannot_limit_is_a_problem():
    host = a_host(kernel={"swap": True}, docker={"swap_limit": False})
    assert the("swap", host).verdict == "problem"
    assert the("swap", a_host(docker={"swap_limit": False})).verdict == "ok"


def test_a_silent_engine_is_one_problem_and_leaves_the_rest_unknown():
    verdicts = {each.id: each.verdict for each in examine(a_host(docker=None))}
    assert the("engine", a_host(docker=None)).seen == "nobody listens on its socket"
    assert [name for name, verdict in verdicts.items() if verdict == "problem"] == ["engine"]
    assert verdicts["engine-seccomp"] == verdicts["advisories-runc"] == "unknown"
    assert verdicts["advisories-kernel"] == verdicts["landlock"] == "ok"


@pytest.mark.parametrize(
    ("engines", "docker", "refusal", "verdicts"),
    [
        ({"oci"}, None, "", ("ok", "ok")),
        ({"auto"}, None, "", ("ok", "ok")),
        ({"docker"}, None, "", ("problem", "ok")),
        ({"docker", "oci"}, None, "", ("problem", "ok")),
        ({"auto"}, None, "no runc", ("problem", "warning")),
        ({"oci"}, {}, "no runc", ("ok", "problem")),
        ({"auto"}, {}, "no runc", ("ok", "ok")),
    ],
)
def test_each_engine_is_judged_by_whether_a_pool_has_it(engines, docker, refusal, verdicts):
    host = replace(a_host(docker=docker), oci=Oci(version="1.4.3", refusal=refusal))
    wanted = Wanted(engines=frozenset(engines))
    found = [the(name, host, wanted) for name in ("engine", "engine-oci")]
    assert tuple(each.verdict for each in found) == verdicts
    assert all(refusal in each.advice for each in found[1:] if each.verdict != "ok")


def test_without_a_docker_engine_the_advisories_of_runc_are_those_of_the_hosts_own():
    host = replace(a_host(docker=None), oci=Oci(version="1.1.11", refusal=""))
    assert "CVE-2024-21626" in the("advisories-runc", host).seen + the("advisories-runc", host).advice


# ---- what the configuration asks for ----


def test_a_configuration_says_what_it_wants_of_the_host():
    settings = loads("pools: {a: {runtime: runsc}, b: {apparmor: mine, isolation: plain}}")
    assert wanted_by(settings) == Wanted(runtimes=frozenset({"runsc"}), profiles=frozenset({"mine"}), namespaces=True)
    assert not wanted_by(loads("pools: {b: {isolation: plain}}")).namespaces


def test_a_runtime_that_the_engine_does_not_know_is_a_problem():
    assert the("engine-runtimes", a_host(), Wanted(runtimes=frozenset({"runsc"}))).verdict == "ok"
    finding = the("engine-runtimes", a_host(), Wanted(runtimes=frozenset({"kata"})))
    assert finding.verdict == "problem"
    assert "kata" in finding.advice


def test_a_profile_that_is_asked_for_and_not_loaded_is_a_problem():
    wanted = Wanted(profiles=frozenset({"mine"}))
    assert the("apparmor-profile", a_host(), wanted).verdict == "problem"
    assert the("apparmor-profile", a_host(kernel={"apparmor": False}), wanted).verdict == "problem"
    assert the("apparmor-profile", a_host(kernel={"profiles": frozenset({"mine"})}), wanted).verdict == "ok"


def test_namespaces_that_no_pool_wants_are_no_problem_when_refused():
    host = a_host(kernel={"namespaces": "user namespace: Operation not permitted"})
    assert the("user-namespaces", host).verdict == "problem"
    assert the("user-namespaces", host, Wanted(namespaces=False)).verdict == "warning"


def test_the_operations_page_explains_every_finding_and_no_other():
    section = OPERATIONS.read_text(encoding="utf-8").partition("`pool-admin doctor`\n")[2].partition("\n## ")[0]
    explained = re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)
    assert explained == list(TITLES)
