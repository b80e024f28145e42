"""Facts of imaginary hosts: one without a problem, and functions that change it."""

from dataclasses import replace
from typing import Any

from pool.doctor import Host
from pool.doctor.facts import Docker, Entry, Kernel, Oci

KERNEL = Kernel(
    release="6.12.48-amd64", cgroups="v2", controllers=frozenset({"cpu", "io", "memory", "pids"}), namespaces="",
    max_user_namespaces=96365, userns_clone=1, apparmor_userns=None, apparmor=True, selinux=False,
    profiles=frozenset({"docker-default", "pool-worker"}), landlock=6,
    seccomp=frozenset({"allow", "errno", "kill_process", "log"}), yama=1, io_uring=2, bpf=2, overcommit=0,
    swap=False, core_pattern="core",
)  # fmt: skip
DOCKER = Docker(
    version="29.6.0", api="1.55", components={"runc": "1.4.3", "containerd": "2.3.5"}, runtime="runc",
    runtimes=frozenset({"runc", "runsc"}), storage="overlay2", live_restore=True, swap_limit=True,
    options=frozenset({"apparmor", "seccomp", "cgroupns"}), warnings=(),
)  # fmt: skip
SOCKET = Entry(path="/run/docker.sock", owner="root", group="docker", mode=0o660)
RUN_DIR = Entry(path="/run/pool", owner="root", group="root", mode=0o711)
ADMIN = Entry(path="/run/pool/admin.sock", owner="root", group="root", mode=0o600)


def a_host(**changes: Any) -> Host:
    """`kernel` and `docker` may be dicts of what is different in them."""
    kernel, docker = changes.pop("kernel", {}), changes.pop("docker", {})
    host = Host(
        kernel=replace(KERNEL, **kernel),
        docker=None if docker is None else replace(DOCKER, **docker),
        silence="" if docker is not None else "nobody listens on its socket",
        # Where there is no Engine there is no runc either, unless the test says so.
        oci=Oci(version="1.4.3", refusal="")
        if docker is not None
        else Oci(version="", refusal="runc is not installed"),
        endpoint="unix:///run/docker.sock",
        tls=False,
        socket=SOCKET,
        run_dir=RUN_DIR,
        admin_socket=ADMIN,
    )
    return replace(host, **changes)
