"""Judges the kernel: which layers it supports, and which of its settings weaken them."""

from __future__ import annotations

import re

from pool.doctor.facts import HostFinding, Kernel, Wanted, ok, problem, unknown, warning

#: The cgroup controllers that a worker's limits need.
CONTROLLERS = frozenset({"memory", "pids", "cpu"})
#: The oldest long-term kernel with all system calls of the runner (close_range, pidfd_open).
OLDEST = (5, 10)
#: From this ABI on, Landlock restricts signals and abstract sockets as well as files.
SCOPES_ABI = 6
#: Name of the profile that comes with the project.
PROFILE = "pool-worker"


def judge(kernel: Kernel, wanted: Wanted, *, swap_limit: bool) -> list[HostFinding]:
    return [
        _version(kernel),
        _cgroups(kernel),
        _controllers(kernel),
        _namespaces(kernel, wanted),
        _seccomp(kernel),
        _landlock(kernel),
        _mandatory(kernel),
        _profile(kernel, wanted),
        _ptrace(kernel),
        _io_uring(kernel),
        _bpf(kernel),
        _overcommit(kernel),
        _swap(kernel, swap_limit=swap_limit),
        _core_dumps(kernel),
    ]


def _version(kernel: Kernel) -> HostFinding:
    found = re.match(r"(\d+)\.(\d+)", kernel.release)
    if found is None:
        return unknown("kernel", kernel.release, "this kernel's version cannot be read; see that it is 5.10 or newer")
    if (int(found[1]), int(found[2])) < OLDEST:
        return problem("kernel", kernel.release, "workers need 5.10 or newer; update the kernel")
    return ok("kernel", kernel.release)


def _cgroups(kernel: Kernel) -> HostFinding:
    if kernel.cgroups == "v2":
        return ok("cgroups", "v2")
    if kernel.cgroups == "none":
        return problem("cgroups", "none", "no limit of a worker can be held; mount the cgroup file system")
    return warning(
        "cgroups",
        kernel.cgroups,
        "limits hold, but memory is accounted less exactly and a worker is not killed as one; boot with "
        "systemd.unified_cgroup_hierarchy=1 for v2",
    )


def _controllers(kernel: Kernel) -> HostFinding:
    missing = sorted(CONTROLLERS - kernel.controllers)
    if missing:
        seen = f"without {', '.join(missing)}"
        advice = "a job can take all of what is not limited; enable the controllers (cgroup_enable=memory at boot)"
        return problem("cgroup-controllers", seen, advice)
    return ok("cgroup-controllers", ", ".join(sorted(CONTROLLERS)))


def _namespaces(kernel: Kernel, wanted: Wanted) -> HostFinding:
    name = "user-namespaces"
    if kernel.namespaces is None:
        return unknown(name, "could not be tried", "look at what the workers report instead")
    if not kernel.namespaces:
        return ok(name, "a user without privileges can make them")
    seen = f"refused: {kernel.namespaces}"
    if not wanted.namespaces:
        return warning(name, seen, "no pool asks for them: every job is a plain process in its worker")
    return problem(name, seen, f"jobs run as plain processes in their worker, a layer is missing; {_remedy(kernel)}")


def _remedy(kernel: Kernel) -> str:
    if kernel.max_user_namespaces == 0:
        return "sysctl user.max_user_namespaces=10000"
    if kernel.userns_clone == 0:
        return "sysctl kernel.unprivileged_userns_clone=1"
    if kernel.apparmor_userns == 1:
        return (
            f"load the profile {PROFILE}, which may make them "
            "(or, for all programs, sysctl kernel.apparmor_restrict_unprivileged_userns=0)"
        )
    return "see what else forbids it: a security module, or a kernel without CONFIG_USER_NS"


def _seccomp(kernel: Kernel) -> HostFinding:
    missing = sorted({"allow", "errno"} - kernel.seccomp)
    if missing:
        advice = "the filters of the workers cannot be loaded; use a kernel with CONFIG_SECCOMP_FILTER"
        return problem("seccomp", "no filters", advice)
    return ok("seccomp", " ".join(sorted(kernel.seccomp)))


def _landlock(kernel: Kernel) -> HostFinding:
    if kernel.landlock is None:
        return unknown("landlock", "could not be asked", "a filter around this command forbids to ask; run it outside")
    if kernel.landlock == 0:
        advice = "jobs have no file rules of their own; use a kernel of 5.13 or newer that boots with lsm=landlock,..."
        return warning("landlock", "none", advice)
    if kernel.landlock < SCOPES_ABI:
        advice = "file rules hold; from kernel 6.12 on, signals and abstract sockets are kept in as well"
        return warning("landlock", f"ABI {kernel.landlock}", advice)
    return ok("landlock", f"ABI {kernel.landlock}")


def _mandatory(kernel: Kernel) -> HostFinding:
    active = [name for name, there in (("AppArmor", kernel.apparmor), ("SELinux", kernel.selinux)) if there]
    if active:
        return ok("mandatory-access", " and ".join(active))
    advice = "no layer depends on it; where the distribution has one, boot with it (security=apparmor) for one more"
    return warning("mandatory-access", "neither", advice)


def _profile(kernel: Kernel, wanted: Wanted) -> HostFinding:
    name = "apparmor-profile"
    if not kernel.apparmor:
        if wanted.profiles:
            advice = "workers with a profile do not start without AppArmor; take `apparmor:` out of the configuration"
            return problem(name, "no AppArmor", advice)
        return ok(name, "not needed without AppArmor")
    if kernel.profiles is None:
        return unknown(name, "this user may not read the profiles", "run doctor as root")
    missing = sorted(wanted.profiles - kernel.profiles)
    if missing:
        return problem(name, f"not loaded: {', '.join(missing)}", "load it with apparmor_parser -r FILE")
    if PROFILE in kernel.profiles or wanted.profiles:
        return ok(name, ", ".join(sorted(kernel.profiles & {PROFILE, "docker-default", *wanted.profiles})))
    return warning(
        name,
        "docker-default only" if "docker-default" in kernel.profiles else "not loaded",
        "docker-default forbids mounts, so jobs get fewer namespaces: apparmor_parser -r seccomp/pool-worker.apparmor, "
        f"and `apparmor: {PROFILE}` in the pool",
    )


def _ptrace(kernel: Kernel) -> HostFinding:
    if kernel.yama:
        return ok("ptrace-scope", f"kernel.yama.ptrace_scope {kernel.yama}")
    seen = "no Yama" if kernel.yama is None else "kernel.yama.ptrace_scope 0"
    advice = "workers forbid it by other means; for the rest of the host: sysctl kernel.yama.ptrace_scope=1"
    return warning("ptrace-scope", seen, advice)


def _io_uring(kernel: Kernel) -> HostFinding:
    if kernel.io_uring == 0:
        advice = "workers may not use it; if nothing else on this host does: sysctl kernel.io_uring_disabled=2"
        return warning("io-uring", "open to everybody", advice)
    return ok("io-uring", "no switch" if kernel.io_uring is None else f"kernel.io_uring_disabled {kernel.io_uring}")


def _bpf(kernel: Kernel) -> HostFinding:
    if kernel.bpf == 0:
        advice = "workers may not use it; for the rest of the host: sysctl kernel.unprivileged_bpf_disabled=1"
        return warning("unprivileged-bpf", "open to everybody", advice)
    return ok("unprivileged-bpf", "no BPF" if kernel.bpf is None else "closed")


def _overcommit(kernel: Kernel) -> HostFinding:
    if kernel.overcommit == 2:
        advice = "a fork of a large process may be refused, and jobs with it; sysctl vm.overcommit_memory=0"
        return warning("overcommit", "vm.overcommit_memory 2", advice)
    return ok("overcommit", "default" if kernel.overcommit is None else f"vm.overcommit_memory {kernel.overcommit}")


def _swap(kernel: Kernel, *, swap_limit: bool) -> HostFinding:
    if not kernel.swap:
        return ok("swap", "off")
    if not swap_limit:
        advice = "a worker can go beyond its memory by swapping; boot with swapaccount=1, or swap off"
        return problem("swap", "on, and the Engine cannot limit it", advice)
    return warning("swap", "on", "workers do not swap; what daemon and clients hold may reach the disk: encrypt it")


def _core_dumps(kernel: Kernel) -> HostFinding:
    if not kernel.core_pattern.startswith("|"):
        return ok("core-dumps", kernel.core_pattern or "none")
    return warning(
        "core-dumps",
        kernel.core_pattern,
        "the kernel runs this program on the host, mostly as root, also for a process in a container whose core limit "
        "is 0: a job that crashes on purpose sends it data; sysctl kernel.core_pattern=core",
    )
