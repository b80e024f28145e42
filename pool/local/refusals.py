"""What to do about a part of the lockdown that this host refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pool.errors import NoLockdownError

#: Kernel settings that forbid user namespaces: the setting, the forbidding value, and how to change it.
_SWITCHES = (
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or run it as root",
    ),
)
_IN_A_CONTAINER = (
    "something around this process forbids it: a security module, a chroot, or a container, whose own filter mostly "
    "refuses new namespaces; run it on the host, or use a pool of a daemon there"
)
_REMEDIES = {
    "landlock": "use a kernel of 5.13 or newer that boots with lsm=landlock,...",
    "noexec": "use a kernel that enforces noexec mounts; gVisor's does not",
    "seccomp filter": "use a kernel with CONFIG_SECCOMP_FILTER on x86-64 or aarch64",
    "proc file system": "parts of /proc are hidden from this process, as in a container; run it on the host",
}


def refusal(part: str, why: str, *, sysctls: Path = Path("/proc/sys")) -> NoLockdownError:
    """`part`: such as "user namespace"; `why`: the kernel's error."""
    remedy = _REMEDIES.get(part) or _switch(sysctls) or _IN_A_CONTAINER
    return NoLockdownError(
        f"nothing was run, because this host refuses a part of the lockdown: {part} ({why}); {remedy}",
        part=part,
        why=why,
        remedy=remedy,
    )


def of_missing(missing: Sequence[str], *, sysctls: Path = Path("/proc/sys")) -> NoLockdownError:
    """For the parts that the runner reports, each "part: why"."""
    part, _, why = missing[0].partition(": ")
    more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
    return refusal(part, f"{why}{more}", sysctls=sysctls)


def _switch(sysctls: Path) -> str:
    for name, forbidding, remedy in _SWITCHES:
        path = sysctls / name
        if path.exists() and path.read_text(encoding="ascii").strip() == forbidding:
            return remedy
    return ""
