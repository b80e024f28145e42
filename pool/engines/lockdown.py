"""The limits and rights of a worker's container, in one place, as plain values.

`container_arguments` makes the body of the Engine's "create container" request from them, and `bundle.py` the
configuration of an OCI container. Both are pure, so a test can read and compare them. Every control has a line in
POLICY, which a test reads back from a running container, control by control. What differs between workers comes from
the WorkerSpec. Everything else is here and cannot be left out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pool.engines.base import Mount, WorkerSpec

#: Labels by which the containers of a daemon are found again.
OWNER_LABEL = "pool.owner"
INSTANCE_LABEL = "pool.instance"
WORKER_LABEL = "pool.worker"
NAME_LABEL = "pool.name"

#: The kernel's default. A shorter period throttles more evenly and costs more context switches.
CPU_PERIOD_US = 100_000

#: When the host runs out of memory, the kernel kills a worker before the daemon and the loops, which have 0.
OOM_SCORE_ADJ = 500

#: Files of the kernel that no job needs; some describe the host. Missing ones are skipped. The Engine's own list is
#: not used, so that every version of the Engine hides the same.
MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/config.gz", "/proc/interrupts", "/proc/kallsyms", "/proc/kcore", "/proc/keys",
    "/proc/key-users", "/proc/kmsg", "/proc/latency_stats", "/proc/modules", "/proc/sched_debug", "/proc/scsi",
    "/proc/slabinfo", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/timer_stats",
    "/proc/vmallocinfo", "/sys/devices/virtual/dmi", "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/module",
)  # fmt: skip
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys")

#: Two tmpfs of the container, the only places where a job can write files. A job starts in the first.
SCRATCH = ("/tmp", "/dev/shm")  # noqa: S108 - inside the container

HOSTNAME = "worker"

#: Limits of each process; `nofile` comes from the spec. A queued signal takes memory of the kernel. The core limit is
#: one byte and not zero, because a core_pattern that is a pipe ignores every other value (fs/coredump.c).
ULIMITS = {"core": 1, "memlock": 0, "msgqueue": 0, "nice": 0, "rtprio": 0, "sigpending": 256}

#: Name prefixes of OCI runtimes with a kernel of their own. Its threads, and a host process for each process inside,
#: are in the worker's cgroup. Without room for them the runtime itself ends.
OWN_KERNEL = ("runsc", "gvisor")
OWN_KERNEL_PROCESSES = 256

#: One thread for each numeric library. By default they start one for every core of the host, whatever the quota is.
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.pthread.stack_cache_size=4294967296",  # see stacks.py of the runner
    "HOME": "/tmp",  # noqa: S108 - the container's own tmpfs
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "TZ": "UTC",
    **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")},
    "VECLIB_MAXIMUM_THREADS": "1",
}

#: Every control that is in force in every worker, and its purpose. A test reads each back by its name.
POLICY = {
    "network": "a network namespace with only a loopback device, and no address of the host's resolvers",
    "root": "the root file system is read-only",
    "capabilities": "no capability in any set",
    "no_new_privileges": "no program that is executed gains privileges",
    "seccomp": "own allow-list of system calls",
    "user": "a user that is not root and that no other worker has",
    "memory": "a hard limit on memory, with no swap on top",
    "cpu": "a CPU quota",
    "processes": "a limit on processes and threads",
    "ulimits": "no core dumps, locked memory, message queues or priority; a cap on open files and on queued signals",
    "scratch": "two sized tmpfs, /tmp and /dev/shm, with a cap on inodes, and noexec",
    "ipc": "System V and POSIX ipc of its own",
    "hostname": "the same host name in every worker",
    "logs": "the Engine keeps a bounded log and never blocks the runner on it",
    "labels": "labels with owner and instance, by which the daemon finds it",
    "environment": "a fixed environment, without the daemon's variables",
    "init": "the runner is PID 1",
    "restart": "the Engine never restarts it: the daemon decides",
    "mounts": "host paths are read-only, without what is mounted below them, and do not propagate",
    "oom": "the OOM killer works, and takes a worker before the rest of the host",
    "masked": "files of /proc and /sys that describe the host are masked, and settings there are read-only",
    "devices": "no device of the host",
    "cgroup": "a cgroup namespace of its own: the host's layout is not shown",
}


def container_name(spec: WorkerSpec) -> str:
    return f"pool-{spec.instance}-{spec.worker_id}"


def container_arguments(spec: WorkerSpec, seccomp: str) -> dict[str, Any]:
    """The body of the request that creates this worker's container; `seccomp` is the profile as JSON text."""
    return {
        "Image": spec.image,
        "Cmd": list(spec.command),
        "User": f"{spec.uid}:{spec.uid}",
        "WorkingDir": SCRATCH[0],
        "Hostname": HOSTNAME,
        "Env": [f"{name}={value}" for name, value in sorted(ENVIRONMENT.items())],
        "Labels": labels(spec),
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "HostConfig": {
            **_isolation(spec, seccomp),
            **_limits(spec),
            **_files(spec),
            **_supervision(),
            **({"Runtime": spec.runtime} if spec.runtime else {}),
        },
    }


def labels(spec: WorkerSpec) -> dict[str, str]:
    """The labels by which `find` recognises the container. An OCI container has them as annotations."""
    return {OWNER_LABEL: spec.owner, INSTANCE_LABEL: spec.instance, WORKER_LABEL: spec.worker_id, NAME_LABEL: spec.pool}


def _isolation(spec: WorkerSpec, seccomp: str) -> dict[str, Any]:
    apparmor = [f"apparmor={spec.apparmor}"] if spec.apparmor else []
    return {
        "NetworkMode": "none",
        "Dns": ["127.0.0.1"],
        "DnsSearch": ["."],
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={seccomp}", *apparmor],
        "Devices": [],
        "MaskedPaths": list(MASKED_PATHS),
        "ReadonlyPaths": list(READ_ONLY_PATHS),
    }


def _limits(spec: WorkerSpec) -> dict[str, Any]:
    return {
        "Memory": spec.memory_bytes,
        "MemorySwap": spec.memory_bytes,
        "OomKillDisable": False,
        "OomScoreAdj": OOM_SCORE_ADJ,
        "CpuPeriod": CPU_PERIOD_US,
        "CpuQuota": cpu_quota_us(spec),
        "PidsLimit": processes(spec),
        "Ulimits": [{"Name": name, "Soft": value, "Hard": value} for name, value in ulimits(spec).items()],
    }


def cpu_quota_us(spec: WorkerSpec) -> int:
    """CPU time in each CPU_PERIOD_US. The kernel takes no less than 1 ms."""
    return max(1000, round(spec.cpus * CPU_PERIOD_US))


def ulimits(spec: WorkerSpec) -> dict[str, int]:
    """Soft and hard limit of each process, by name."""
    return dict(sorted({**ULIMITS, "nofile": spec.nofile}.items()))


def processes(spec: WorkerSpec) -> int:
    """The pids limit of the worker's cgroup."""
    return spec.processes + (OWN_KERNEL_PROCESSES if _own_kernel(spec.runtime) else 0)


def maps_files(runtime: str | None, allow: Collection[str]) -> bool:
    """Whether a job may map a file of the daemon. Its /proc, where it has one, would show the path of that file."""
    return not _own_kernel(runtime) and "proc" not in allow


def _own_kernel(runtime: str | None) -> bool:
    return runtime is not None and runtime.startswith(OWN_KERNEL)


def _files(spec: WorkerSpec) -> dict[str, Any]:
    return {
        "ReadonlyRootfs": True,
        "Tmpfs": dict.fromkeys(SCRATCH, ",".join(scratch_options(spec))),
        "Mounts": [_bind(mount) for mount in spec.mounts],
    }


def scratch_options(spec: WorkerSpec) -> tuple[str, ...]:
    """Mount options of each tmpfs of SCRATCH."""
    size = (f"size={spec.tmp_bytes}", f"nr_inodes={spec.tmp_inodes}")
    return ("rw", "noexec", "nosuid", "nodev", "mode=1777", *size)


def _bind(mount: Mount) -> dict[str, Any]:
    # A read-only bind is not read-only for what is mounted below it, hence not recursive.
    return {
        "Type": "bind",
        "Source": str(mount.source),
        "Target": mount.target,
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
    }


def _supervision() -> dict[str, Any]:
    return {
        "Init": False,
        "AutoRemove": False,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": "256k", "max-file": "1", "mode": "non-blocking", "max-buffer-size": "256k"},
        },
    }
