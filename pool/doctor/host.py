"""Reads the facts about the host: the kernel, the Docker Engine, and who owns which files. Judges nothing."""

from __future__ import annotations

import ctypes
import errno
import grp
import gzip
import os
import pwd
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pool.config.settings import Settings
from pool.doctor.facts import Docker, Entry, Host, Kernel, Oci, Wanted
from pool.engines import runc
from pool.engines.connection import SDK_ERRORS, Connections, unavailable
from pool.errors import EngineError, EngineUnavailableError


def gather(run_dir: Path) -> Host:
    """The facts about this host and a daemon's run directory; that the Engine does not answer is also a fact."""
    docker, silence = None, ""
    try:
        docker = read_engine()
    except EngineError as error:
        silence = error.message
    where = endpoint()
    local = where.startswith("unix://")
    return Host(
        kernel=read_kernel(),
        docker=docker,
        silence=silence,
        oci=read_oci(),
        endpoint=where,
        tls=not local and tls(),
        socket=entry(Path(where.removeprefix("unix://"))) if local else None,
        run_dir=entry(run_dir),
        admin_socket=entry(run_dir / "admin.sock"),
        # The packages of this host say nothing about an Engine elsewhere.
        changelogs=changelogs() if local else {},
    )


def wanted_by(settings: Settings) -> Wanted:
    """What a configuration needs on the host."""
    pools = settings.pools.values()
    return Wanted(
        runtimes=frozenset(pool.runtime for pool in pools if pool.runtime),
        profiles=frozenset(pool.apparmor for pool in pools if pool.apparmor),
        namespaces=any(pool.isolation != "plain" for pool in pools),
        engines=frozenset(pool.engine for pool in pools),
    )


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
    """Tried in a separate process, because it gives up rights and changes namespaces."""
    script = Path(__file__).with_name("try_namespaces.py")
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


#: An operator waits for the answer.
TIMEOUT_S = 10
DEFAULT_ENDPOINT = "unix:///var/run/docker.sock"


def endpoint() -> str:
    """The endpoint at which the SDK finds the Engine, with one spelling for a Unix socket."""
    return (os.environ.get("DOCKER_HOST", "") or DEFAULT_ENDPOINT).removeprefix("http+")


def tls() -> bool:
    """Whether the SDK uses TLS, by the SDK's own rule."""
    return bool(os.environ.get("DOCKER_TLS_VERIFY") or os.environ.get("DOCKER_CERT_PATH"))


def read_engine() -> Docker:
    """Raises EngineUnavailableError."""
    connections = Connections(timeout_s=TIMEOUT_S)
    try:
        with connections.client() as client:
            return described(client.version(), client.info())
    except SDK_ERRORS as error:
        raise unavailable(error, "answer") from error
    except (TypeError, AttributeError, KeyError, IndexError) as error:
        message = f"the program that answers at {endpoint()} is not a Docker Engine: {error!r}"
        raise EngineUnavailableError(message) from error
    finally:
        connections.close()


def read_oci() -> Oci:
    """It changes nothing on the host."""
    try:
        version = runc.Runc(Path("/")).version()
    except EngineError as error:
        return Oci(version="", refusal=error.message)
    if not runc.is_root():
        return Oci(version=version, refusal="the daemon has to be root; run doctor as the daemon's user")
    places = [CGROUPS] if runc.cgroup_version() == "v2" else [CGROUPS / name for name in runc.CONTROLLERS]
    closed = [str(place) for place in places if not os.access(place, os.W_OK)]
    refusal = f"{' '.join(closed)} cannot be written; run the daemon on the host itself" if closed else ""
    return Oci(version=version, refusal=refusal)


def described(version: Mapping[str, Any], found: Mapping[str, Any]) -> Docker:
    """The Engine's two answers, `version` and `info`, as facts."""
    return Docker(
        version=str(version.get("Version", "?")),
        api=str(version.get("ApiVersion", "?")),
        components=_components(version, found),
        runtime=str(found.get("DefaultRuntime", "?")),
        runtimes=frozenset(found.get("Runtimes") or {}),
        storage=str(found.get("Driver", "")),
        live_restore=bool(found.get("LiveRestoreEnabled")),
        swap_limit=bool(found.get("SwapLimit")),
        options=frozenset(_option(each) for each in found.get("SecurityOptions") or ()),
        warnings=tuple(str(each) for each in found.get("Warnings") or ()),
    )


def _components(version: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, str]:
    """The more exact version of each: a distribution's build reports its package version in place of a commit."""
    parts = {str(each.get("Name")): each for each in version.get("Components") or ()}
    versions = {}
    for name, key in (("runc", "RuncCommit"), ("containerd", "ContainerdCommit")):
        short = str(parts.get(name, {}).get("Version") or "")
        exact = str((found.get(key) or {}).get("ID") or "")
        versions[name] = exact if re.match(r"v?\d+\.\d", exact) else short
    return versions


def _option(text: str) -> str:
    """The name of a security option: seccomp for `name=seccomp,profile=default`."""
    return text.partition(",")[0].removeprefix("name=")


#: Debian's packages of each component, and where their changelogs are.
PACKAGES = {"runc": ("runc",), "containerd": ("containerd",), "docker": ("docker.io",)}
CHANGELOGS = Path("/usr/share/doc")
MAX_CHANGELOG_BYTES = 4 << 20


def entry(path: Path) -> Entry | None:
    """The target, where the path is a link; None when it cannot be read."""
    try:
        found = path.stat()
        parents = [(each, each.stat().st_mode) for each in path.resolve().parents]
    except (OSError, ValueError):
        return None
    return Entry(
        path=str(path),
        owner=_user(found.st_uid),
        group=_group(found.st_gid),
        mode=stat.S_IMODE(found.st_mode),
        members=_members(found.st_gid),
        loose=tuple(str(each) for each, mode in parents if mode & stat.S_IWOTH and not mode & stat.S_ISVTX),
    )


def changelogs() -> dict[str, frozenset[str]]:
    """For each component, the CVEs that the changelog of its installed package names."""
    found = {}
    for component, packages in PACKAGES.items():
        for package in packages:
            text = _changelog(CHANGELOGS / package / "changelog.Debian.gz")
            if text:
                found[component] = frozenset(re.findall(r"CVE-\d{4}-\d{4,}", text))
    return found


def _changelog(path: Path) -> str:
    try:
        with gzip.open(path) as file:
            return file.read(MAX_CHANGELOG_BYTES).decode("utf-8", "replace")
    except (OSError, EOFError):
        return ""


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _members(gid: int) -> tuple[str, ...]:
    """The members of a group, listed or by primary group. Root is left out, because it may do everything."""
    try:
        listed = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        listed = set()
    listed |= {each.pw_name for each in pwd.getpwall() if each.pw_gid == gid}
    return tuple(sorted(listed - {"root"}))
