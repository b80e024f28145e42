"""Reads what the kernel offers and how it is set. Nothing here raises: what cannot be read is None or empty."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

from pool.doctor.facts import Kernel

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
PROFILES = Path("/sys/kernel/security/apparmor/profiles")
SELINUX = Path("/sys/fs/selinux/enforce")

#: Number of landlock_create_ruleset, the same on every architecture, and its flag that asks for the ABI.
LANDLOCK_CREATE_RULESET, LANDLOCK_CREATE_RULESET_VERSION = 444, 1
ATTEMPT_TIMEOUT_S = 10


def read_kernel() -> Kernel:
    apparmor = _text(APPARMOR).startswith("Y")
    return Kernel(
        release=os.uname().release,
        cgroups=_cgroups(),
        controllers=_controllers(),
        namespaces=_namespaces(),
        max_user_namespaces=_setting("user/max_user_namespaces"),
        userns_clone=_setting("kernel/unprivileged_userns_clone"),
        apparmor_userns=_setting("kernel/apparmor_restrict_unprivileged_userns"),
        apparmor=apparmor,
        selinux=SELINUX.exists(),
        profiles=_profiles() if apparmor else frozenset(),
        landlock=_landlock(),
        seccomp=frozenset(_text(PROC / "sys/kernel/seccomp/actions_avail").split()),
        yama=_setting("kernel/yama/ptrace_scope"),
        io_uring=_setting("kernel/io_uring_disabled"),
        bpf=_setting("kernel/unprivileged_bpf_disabled"),
        overcommit=_setting("vm/overcommit_memory"),
        swap=len(_text(PROC / "swaps").splitlines()) > 1,
        core_pattern=_text(PROC / "sys/kernel/core_pattern").strip(),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _setting(name: str) -> int | None:
    try:
        return int(_text(PROC / "sys" / name))
    except ValueError:
        return None


def _cgroups() -> str:
    if (CGROUPS / "cgroup.controllers").exists():
        return "v2"
    if (CGROUPS / "unified" / "cgroup.procs").exists():
        return "hybrid"
    return "v1" if (CGROUPS / "memory").exists() or (CGROUPS / "cpu").exists() else "none"


def _controllers() -> frozenset[str]:
    if unified := _text(CGROUPS / "cgroup.controllers"):
        return frozenset(unified.split())
    rows = [line.split() for line in _text(PROC / "cgroups").splitlines() if not line.startswith("#")]
    return frozenset(row[0] for row in rows if row[-1] == "1" and (CGROUPS / row[0]).exists())


def _namespaces() -> str | None:
    """Tried in a process of its own, whose rights and namespaces are nobody else's."""
    script = Path(__file__).with_name("attempt.py")
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(script)],
            capture_output=True,
            text=True,
            timeout=ATTEMPT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _profiles() -> frozenset[str] | None:
    """Each line is `name (mode)`."""
    try:
        lines = PROFILES.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return frozenset(line.rpartition(" (")[0] for line in lines)


def _landlock() -> int | None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    abi = libc.syscall(
        ctypes.c_long(LANDLOCK_CREATE_RULESET),
        None,
        ctypes.c_size_t(0),
        ctypes.c_uint32(LANDLOCK_CREATE_RULESET_VERSION),
    )
    if abi >= 0:
        return int(abi)
    return 0 if ctypes.get_errno() in (errno.ENOSYS, errno.EOPNOTSUPP) else None
