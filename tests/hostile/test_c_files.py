"""Files of the container: nothing but the job's own scratch space can be written, nothing there can be run, and what can
be read tells nothing of the host.
"""

import os
import socket
from ast import literal_eval

import pytest
from runner import without_programs

from tests.hostile.alone import ENGINE, PRELUDE

pytestmark = pytest.mark.docker

WRITE = """
def main(root):
    written, tried, reasons = [], 0, set()
    def reach(path, flags):
        try:
            os.close(os.open(path, flags | os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY, 0o600))
            written.append(path)
        except OSError as error:
            reasons.add(errno.errorcode[error.errno])
    for directory, names, files in os.walk(root, onerror=lambda error: reasons.add(errno.errorcode[error.errno])):
        if directory in ("/tmp", "/dev/shm"):
            names[:] = []
            continue
        tried += 1 + len(files)
        reach(os.path.join(directory, "planted"), os.O_CREAT | os.O_EXCL)
        for name in files:
            reach(os.path.join(directory, name), 0)
    return written, tried, sorted(reasons)
"""


def test_c26_c27_nothing_of_the_file_system_is_writable(attack, outside, record):
    written, tried, reasons = attack(PRELUDE + WRITE, "/").value
    assert tried > 3000
    streams = {f"/dev/{name}" for name in ("stdin", "stdout", "stderr")} | {f"/proc/self/fd/{n}" for n in range(3)}
    assert [path for path in written if path not in streams] == ["/dev/null"]
    assert set(reasons) <= {"EROFS", "EACCES", "ENOENT", "ENXIO"}
    loose, _, _ = literal_eval(outside(PRELUDE + WRITE, ".").value)
    assert loose == ["./planted"]
    record("C26", f"every file and directory opened for writing: {tried}", "ERR",
           stopped_by=["landlock", "container", "image"], seen=f"{written}, {reasons}", outside=loose)  # fmt: skip


CONTROLS = {
    "C26": (
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches",
        "/proc/irq/default_smp_affinity", "/proc/bus/pci", "/proc/sys/kernel/hostname", "/proc/sys/fs/binfmt_misc/register",
        "/proc/self/oom_score_adj", "/proc/self/uid_map", "/proc/self/setgroups", "/proc/self/attr/current",
    ),
    "C27": (
        "/sys/kernel/uevent_helper", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/release_agent",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/release_agent", "/sys/power/state",
        "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/fs/cgroup/devices/devices.allow",
    ),
    "C28": (
        "/dev/mem", "/dev/kmem", "/dev/port", "/dev/kvm", "/dev/fuse", "/dev/loop0", "/dev/loop-control", "/dev/vda",
        "/dev/sda", "/dev/userfaultfd", "/dev/net/tun", "/dev/uinput", "/dev/vsock", "/dev/vhost-vsock", "/dev/kmsg",
        "/dev/console", "/dev/tty", "/dev/ptmx", "/dev/pts/ptmx", "/dev/mqueue/x",
    ),
    "C33": (
        "/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/timer_list", "/proc/sched_debug",
        "/proc/kmsg", "/proc/modules", "/proc/iomem", "/proc/config.gz", "/proc/cmdline", "/proc/interrupts",
        "/sys/firmware", "/sys/kernel/debug", "/sys/kernel/notes", "/sys/module", "/proc/slabinfo", "/proc/vmallocinfo",
    ),
    "C34": (
        "/proc/mounts", "/proc/self/mountinfo", "/proc/cpuinfo", "/proc/sys/kernel/random/boot_id", "/etc/machine-id",
        "/sys/class/dmi/id/product_uuid", "/proc/net/arp", "/proc/net/route", "/proc/self/cgroup", "/var/lib/docker",
        "/.dockerinit", "/run/secrets", "/root", "/home", "/var/run/docker.sock", "/run/containerd", "/proc/1/root",
    ),
}  # fmt: skip
OPEN = """
def main(paths):
    told = {}
    for path in paths:
        for mode in (os.O_RDONLY, os.O_WRONLY, os.O_PATH):
            word = attempt(lambda: os.close(os.open(path, mode | os.O_NONBLOCK | os.O_NOCTTY)))
            told.setdefault(word, set()).add(path)
    return {word: sorted(found) for word, found in told.items()}
"""


@pytest.mark.parametrize("entry", CONTROLS)
def test_files_that_rule_or_tell_of_the_host_are_not_there(attack, outside, record, entry):
    seen = attack(PRELUDE + OPEN, CONTROLS[entry]).value
    assert set(seen.pop("ok", ())) <= {"/dev/tty"}, "by O_PATH: it can be named, and is nobody's"
    assert set(seen) <= {"ENOENT", "EACCES", "ENXIO"}, seen
    assert set(seen.get("EACCES", ())) <= {"/dev/tty"}
    loose = literal_eval(outside(PRELUDE + OPEN, CONTROLS[entry]).value)
    assert loose["ok"], "none of them is on this host: nothing is shown"
    record(entry, f"{len(CONTROLS[entry])} files that rule or tell of the host", "ERR",
           stopped_by=["namespaces", "landlock", "container"], seen=seen, outside=f"opened: {loose['ok']}")  # fmt: skip


TERMINALS = """
def main():
    told = set()
    for path in ("/dev/ptmx", "/dev/pts/ptmx", "/dev/tty"):
        for mode in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_NOCTTY):
            for _ in range(20):
                told.add(attempt(lambda: os.open(path, mode)))
    with open("/proc/sys/kernel/pty/nr") as number:
        return sorted(told), int(number.read())
"""


def test_c28_a_job_takes_none_of_the_terminals_that_all_containers_share(attack, outside, record):
    told, taken = literal_eval(outside(PRELUDE + TERMINALS).value)
    assert "ok" in told
    assert taken >= 60
    inside = TERMINALS[: TERMINALS.index("    with")] + "    return sorted(told)\n"
    seen = attack(PRELUDE + inside).value
    assert set(seen) <= {"ENOENT", "EACCES", "ENXIO"}, seen
    record("C28", "pseudo terminals, of which a host has a number for all its containers", "ERR",
           stopped_by=["namespaces"], seen=seen, outside=f"{taken} taken")  # fmt: skip


READ_ALL = """
def main(places):
    found = {}
    for place in places:
        for directory, _, files in os.walk(place):
            for name in files:
                path = os.path.join(directory, name)
                try:
                    with open(path, "rb") as file:
                        found[path] = file.read(4096)
                except OSError:
                    pass
    return found, dict(os.environ), list(os.uname()), sorted(os.listdir("/"))
"""
TOP = ["bin", "datasets", "dev", "etc", "lib", "lib64", "opt", "proc", "run", "sys", "tmp", "usr"]
#: The variables of a job, besides those that limit the threads of libraries.
VARIABLES = {
    *("HOME", "USER", "LOGNAME", "HOSTNAME", "LANG", "PATH", "TMPDIR", "TZ", "OUTPUT_DIR"),
    *("JOBLIB_MULTIPROCESSING", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED"),
    *without_programs.ALLOCATORS,
}


def test_c34_what_a_job_can_read_holds_nothing_of_the_host(attack, record):
    places = ["/etc", "/run", "/sys", "/datasets", "/.dockerenv"]
    read, environment, names, top = attack(PRELUDE + READ_ALL, places).value
    code = "def main(): return [(at, files) for at, _, files in os.walk('/proc')]"
    (_, beside), (_, own), (place, _) = attack(PRELUDE + code).value
    assert (beside, own, place) == ([], [], "/proc/self/fd"), "its own descriptors and nothing else"
    assert top == [*([".dockerenv"] if ENGINE == "docker" else []), *TOP]
    assert {path.split("/")[1] for path in read} == {"etc"}
    everything = b"\n".join(read.values()) + repr(environment).encode()
    assert [secret for secret in secrets_of_the_host() if secret.encode() in everything] == []
    assert {line.split(b":")[0] for line in read["/etc/passwd"].splitlines()} == {b"root", b"job", b"nobody"}
    assert read["/etc/hostname"] == b"worker\n"
    assert (read["/etc/resolv.conf"].split(), names[1]) == ([b"nameserver", b"127.0.0.1"], "worker")
    assert {name for name in environment if not name.endswith("_THREADS")} == VARIABLES
    record("C34", "names, environment and files that tell of the host", "INERT", stopped_by=["container", "namespaces", "image"],
           seen=f"kernel {names[2]}, {len(read)} files of the image's /etc")  # fmt: skip


def secrets_of_the_host():
    """Names of the host and of the user who runs the tests, without those that a container has too."""
    variables = ("HOME", "USER", "VIRTUAL_ENV", "SSH_CONNECTION")
    return {socket.gethostname(), *(os.environ.get(name, "") for name in variables)} - {"", "/", "worker", "root"}


def test_c29_no_file_gives_rights_and_no_file_can_be_given_any(attack, outside, record):
    code = """
import stat
def main(root):
    with open("own", "w"):
        pass
    told = [attempt(lambda: os.chmod("own", 0o6755)), attempt(lambda: os.chown("own", 0, 0))]
    told += [attempt(lambda: os.setxattr("own", "security.capability", b"\\1\\0\\0\\2" + b"\\0" * 16))]
    told += [attempt(lambda: os.setxattr("own", "user.x", b"x"))]
    told += [attempt(lambda: os.setuid(0)), attempt(lambda: os.setgid(0)), attempt(lambda: os.setgroups([0]))]
    marked = [os.path.join(d, f) for d, _, files in os.walk(root) for f in files if os.lstat(os.path.join(d, f)).st_mode & 0o6000]
    return told, [path for path in marked if path != os.path.abspath("own")], os.getresuid(), os.statvfs(".").f_flag & os.ST_NOSUID
"""
    loose, *_ = literal_eval(outside(PRELUDE + code, ".").value)
    assert loose[4:] == ["ok"] * 3
    told, marked, users, nosuid = attack(PRELUDE + code, "/").value
    assert told == ["ok"] + ["EPERM"] * 6
    assert marked == []
    assert nosuid
    assert len(set(users)) == 1
    assert 0 not in users
    record("C29", "setuid files, file capabilities, setuid(0), setgroups", "ERR",
           stopped_by=["job filter", "seccomp", "container", "image", "namespaces"], seen=told, outside=loose)  # fmt: skip


EXECUTE = """
import shutil, mmap
def main():
    shutil.copy(os.path.realpath(sys.executable), "program")
    os.chmod("program", 0o755)
    with open("script", "w") as file:
        file.write("#!" + sys.executable + "\\nprint(1)\\n")
    os.chmod("script", 0o755)
    def run(path):
        if (pid := os.fork()) == 0:
            try:
                os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
                os.execv(path, [path, "-c", "pass"])
            except OSError as error:
                os._exit(error.errno)
            os._exit(255)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return errno.errorcode[status] if status else "ok"
    told = {name: run(path) for name, path in (("program", "./program"), ("script", "./script"), ("python", sys.executable))}
    fd = os.open("program", os.O_RDONLY)
    told["execveat"] = call(322, fd, b"", None, None, 0x1000)
    told["memfd"] = call(319, b"x", 1)
    told["map"] = attempt(lambda: mmap.mmap(fd, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close())
    return told
"""


def test_c38_c30_no_program_is_run_whatever_it_is_made_of(attack, outside, record):
    seen = attack(PRELUDE + EXECUTE).value
    assert seen.pop("map") == "EPERM", "the scratch space is noexec for mmap too"
    assert set(seen.values()) == {"EPERM"}, seen
    loose = literal_eval(outside(PRELUDE + EXECUTE.replace('told["execveat"] =', "#")).value)
    assert set(loose.values()) == {"ok"}, loose
    record("C38", "execve, execveat, memfd_create, exec from scratch space, PROT_EXEC of a file there", "ERR",
           stopped_by=["job filter", "landlock"], seen=seen, outside=loose)  # fmt: skip
    record("C30", "/proc/self/exe and the runtime's descriptors", "ERR", stopped_by=["namespaces", "runner"],
           seen="no /proc; four descriptors, none of a file")  # fmt: skip


def test_c31_links_and_dots_lead_nowhere_above_the_root(attack, record):
    code = """
def main():
    os.symlink("/proc/1/root", "a"); os.symlink("../" * 40 + "etc/shadow", "b"); os.symlink("/run/pool/link.sock", "c")
    told = [attempt(lambda: os.close(os.open(name, os.O_RDONLY))) for name in ("a", "b", "c", "../" * 40 + "root", "/../root")]
    told += [attempt(lambda: os.link(name, "hard")) for name in ("/etc/passwd", "/usr/bin/python3", "/dev/null")]
    place = os.open(".", os.O_RDONLY)
    for _ in range(40):
        os.chdir("..")
    os.fchdir(place)
    return told, call(161, b"."), os.path.samestat(os.stat("../" * 40), os.stat("/"))
"""
    told, chroot, same = attack(PRELUDE + code).value
    assert told[:5] == ["ENOENT"] * 5
    assert set(told[5:]) <= {"EXDEV", "EACCES", "EPERM"}
    assert (chroot, same) == ("EPERM", True)
    record(
        "C31", "symlinks, dots and hard links out of the root", "ERR", stopped_by=["namespaces", "landlock"], seen=told
    )


def test_c39_no_client_sets_a_variable_that_loads_code(client, record):
    from pool.errors import InvalidJobError

    names = (
        "LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME",
        "PATH",
    )  # fmt: skip
    for name in names:
        with pytest.raises(InvalidJobError, match="env"):
            client.run("result = 1", env={name: "/tmp/x"}, pool="open")
    record(
        "C39",
        f"environment: {', '.join(names)}",
        "DROP",
        stopped_by=["daemon"],
        seen="InvalidJobError: env_allow is empty",
    )


def test_c25_time_zone_and_clock_files_are_read_only(attack, record):
    code = PRELUDE + """
def main():
    told = [attempt(lambda: os.open(path, os.O_WRONLY | os.O_CREAT)) for path in ("/etc/localtime", "/etc/timezone", "/etc/adjtime")]
    return told, attempt(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))
"""  # fmt: skip
    files, clock = attack(code).value
    assert set(files) <= {"EROFS", "EACCES"}
    assert clock == "EPERM"
    record(
        "D25",
        "clock and time zone files",
        "ERR",
        stopped_by=["landlock", "container", "job filter", "seccomp"],
        seen=files,
    )
