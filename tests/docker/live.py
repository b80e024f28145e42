"""The state of a running container, read from the host through /proc and the cgroup file system; and what it should be.

`seen_mounts` and `intended_mounts` give the same shape, {target: Mounted}, so that a test can ask for equality.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from pool.engines import runc
from pool.engines.lockdown import MASKED_PATHS, READ_ONLY_PATHS
from pool.engines.oci_container import CGROUP

FLAGS = frozenset({"ro", "rw", "nosuid", "nodev", "noexec"})
SEALED = frozenset({"ro", "nosuid", "nodev", "noexec"})
SCRATCH = frozenset({"rw", "nosuid", "nodev", "noexec"})


@dataclass(frozen=True)
class Mounted:
    """`kind` is the file system's type, or where the mount comes from if that is what matters."""

    kind: str
    flags: frozenset[str]
    size: str = ""
    inodes: str = ""


# ---- containers ----------------------------------------------------------------------------------------------------


def containers(sdk, **labels):
    """Ids of the Docker Engine's containers with these labels."""
    filters = {"label": [f"pool.{name}={value}" for name, value in labels.items()]}
    return [found["Id"] for found in sdk.containers(all=True, filters=filters)]


def places(engine):
    """Names of all that there is of the containers of an engine oci: files, state of runc, cgroups."""
    (containers, state) = (engine.directory / name for name in ("containers", "state"))
    names = {path.name for directory in (containers, state) if directory.exists() for path in directory.iterdir()}
    cgroups = {path.name for path in runc.CGROUPS.glob(f"*{CGROUP}/*") if path.name in names}
    return names | cgroups


# ---- processes -----------------------------------------------------------------------------------------------------


def processes(container_id):
    """Host pids of everything in the container, whatever namespace it is in."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if container_id in (entry / "cgroup").read_text():
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
    return sorted(found)


def of_each(container_id, read):
    """{pid: read(pid)} of everything in the container. What ends meanwhile is left out."""
    found = {}
    for pid in processes(container_id):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[pid] = read(pid)
    return found


def first_process(container_id):
    """Host pid of the runner: process 1 of the container's pid namespace, and not of one inside it."""
    return next(pid for pid in processes(container_id) if _is_first(pid))


def _is_first(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has just ended
    (numbers,) = (line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
    return len(numbers) == 2 and numbers[1] == "1"


def threads(pid):
    """Fields of the status of every thread."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        found.append({name: value.strip() for name, _, value in (line.partition(":") for line in lines)})
    return found


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def namespaces(pid):
    """{kind: name}. `pid_for_children` is left out while it has no process: after unshare and before the next fork."""
    found = {path.name: path for path in Path(f"/proc/{pid}/ns").iterdir()}
    names = {kind: str(path.readlink()) for kind, path in found.items() if kind != "pid_for_children"}
    with contextlib.suppress(FileNotFoundError):
        names["pid_for_children"] = str(found["pid_for_children"].readlink())
    return names


def descriptors(pid):
    return {path.name: os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}


def opened_for(pid, number):
    """O_RDONLY, O_WRONLY, O_RDWR or O_PATH."""
    text = Path(f"/proc/{pid}/fdinfo/{number}").read_text()
    flags = int(text.partition("flags:")[2].split()[0], 8)
    return flags & (os.O_ACCMODE | os.O_PATH)


def unix_sockets(pid):
    """Inodes of the unix sockets in this process's net namespace."""
    return {line.split()[6] for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]}


# ---- mounts --------------------------------------------------------------------------------------------------------


def seen_mounts(pid, binds):
    """{target: Mounted} of a process; the `binds` are known by where they come from, whatever file system that is."""
    found = {}
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        _, _, _, root, target, options, *propagation = before.split()
        assert target not in found, f"two mounts on {target}"
        assert propagation == [] or target == "/", f"{target} takes part in propagation: {propagation}"
        assert not any(word.startswith("shared:") for word in propagation), (
            "what is mounted inside would appear outside"
        )
        flags = FLAGS & set(options.split(","))
        if target in binds:  # the source's own flags come along
            assert root.endswith(binds[target]), f"{target} shows {root}"
            found[target] = Mounted("bind", frozenset({"ro"} & flags))
        else:
            found[target] = _mounted(target, root, frozenset(flags), after.split())
    return found


def _mounted(target, root, flags, file_system):
    kind, _, superblock = file_system
    if root == "/null" or (kind == "tmpfs" and flags == {"ro"} and target in MASKED_PATHS):
        return Mounted("nothing", frozenset())
    values = dict(word.partition("=")[::2] for word in superblock.split(","))
    size = values.get("size", "") if kind == "tmpfs" and flags == SCRATCH else ""
    return Mounted(kind, flags, size, values.get("nr_inodes", ""))


def binds(spec):
    """{target: end of the path on its file system}: the spec's mounts, and three files that the Engine makes."""
    files = {f"/etc/{name}": f"/{name}" for name in ("resolv.conf", "hostname", "hosts")}
    return {mount.target: f"/{mount.source.name}" for mount in spec.mounts} | files


def intended_mounts(spec, root_kind):
    return {
        "/": Mounted(root_kind, frozenset({"ro"})),
        "/proc": Mounted("proc", SCRATCH),
        "/dev": Mounted("tmpfs", frozenset({"rw", "nosuid"})),
        "/dev/pts": Mounted("devpts", frozenset({"rw", "nosuid", "noexec"})),
        "/dev/mqueue": Mounted("mqueue", SCRATCH),
        "/sys": Mounted("sysfs", SEALED),
        **{place: Mounted("tmpfs", SCRATCH, f"{spec.tmp_bytes >> 10}k", str(spec.tmp_inodes)) for place in _SCRATCH},
        **{target: Mounted("bind", frozenset({"ro"})) for target in binds(spec)},
        **{path: Mounted("nothing", frozenset()) for path in MASKED_PATHS if Path(path).exists()},
        **{path: Mounted("proc", SEALED) for path in READ_ONLY_PATHS if Path(path).exists()},
        **_cgroups(),
    }


_SCRATCH = ("/tmp", "/dev/shm")


def _cgroups():
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return {"/sys/fs/cgroup": Mounted("cgroup2", SEALED)}
    names = {line.split(":")[1].removeprefix("name=") for line in Path("/proc/self/cgroup").read_text().splitlines()}
    places = {f"/sys/fs/cgroup/{name}": Mounted("cgroup", SEALED) for name in names if name}
    return {"/sys/fs/cgroup": Mounted("tmpfs", SCRATCH)} | places


# ---- cgroup --------------------------------------------------------------------------------------------------------


def limits(pid):
    """Memory, memory with swap, pids, and CPU quota and period, of whichever cgroup version this host has."""
    at = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        at |= dict.fromkeys(names.split(","), path.lstrip("/"))
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        own = root / at[""]
        quota, period = (own / "cpu.max").read_text().split()
        memory = int((own / "memory.max").read_text())
        both = memory + int((own / "memory.swap.max").read_text())
        return memory, both, int((own / "pids.max").read_text()), int(quota), int(period)
    memory, cpu, pids = (next(root.glob(f"{name}/{at[name]}")) for name in ("memory", "cpu", "pids"))
    names = (
        memory / "memory.limit_in_bytes", memory / "memory.memsw.limit_in_bytes", pids / "pids.max",
        cpu / "cpu.cfs_quota_us", cpu / "cpu.cfs_period_us",
    )  # fmt: skip
    return tuple(int(path.read_text()) for path in names)
