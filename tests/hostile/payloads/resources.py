"""Ways to exhaust resources: class B of the catalogue. Only data.

Each defines `main`. `seen`: what it has to return, as an expression over `value`.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Attack:
    number: str
    title: str
    code: str
    outcomes: frozenset[str]
    layers: tuple[str, ...]
    seen: str = "True"
    limits: dict[str, object] = field(default_factory=dict)


def _a(number: str, title: str, code: str, outcomes: str, layers: str, seen: str = "True", **limits: object) -> Attack:
    words = tuple(each.strip() for each in layers.split(","))
    return Attack(number, title, code.strip("\n") + "\n", frozenset(outcomes.split()), words, seen, limits)


#: In front of each.
COMMON = '''
import ctypes, errno, os, resource, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)

def refused(attempt, *arguments):
    """The name of the error, or what came of it."""
    try:
        got = attempt(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return got

def raw(number, *arguments):
    """A system call by its number on x86_64."""
    ctypes.set_errno(0)
    got = libc.syscall(ctypes.c_long(number), *arguments)
    return errno.errorcode[ctypes.get_errno()] if got == -1 else got

'''

ATTACKS = (
    # ---- processes ----
    _a("B1", "fork until it fails", """
def main():
    forked = 0
    try:
        while forked < 10_000:
            if os.fork() == 0:
                time.sleep(30)
            forked += 1
    except OSError as error:
        return forked, errno.errorcode[error.errno]
""", "ok", "limits, container", "value[0] < 24 and value[1] == 'EAGAIN'"),
    _a("B1", "every fork forks", """
def main():
    while True:
        try:
            os.fork()
        except OSError:
            pass
""", "timeout", "limits, namespaces, runner"),
    _a("B1", "forks in sessions of their own that outlive the job", """
def main():
    for _ in range(10):
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            while True:
                time.sleep(1)
    return True
""", "ok", "namespaces, runner"),
    _a("B1", "multiprocessing", """
import multiprocessing
def main():
    workers = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,)) for _ in range(100)]
    return refused(lambda: [each.start() for each in workers])
""", "ok", "limits, container", "value == 'EAGAIN'"),
    _a("B2", "threads until it fails", """
import threading
def main():
    try:
        for started in range(10_000):
            threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    except RuntimeError as error:
        return started, str(error)
""", "ok", "limits, container", "value[0] < 24 and 'start new thread' in value[1]"),
    # ---- memory ----
    _a("B4", "one large allocation", "def main():\n    return len(bytearray(1 << 40))", "memory", "limits", memory="64m"),
    _a("B4", "many allocations", "def main():\n    kept = []\n    while True:\n        kept.append(bytearray(1 << 20))", "memory", "limits", memory="64m"),
    _a("B4", "shared memory that no rlimit counts", """
import mmap
def main():
    held = mmap.mmap(-1, 2 << 30)
    for at in range(0, 2 << 30, 4096):
        held[at] = 1
    return "all of it"
""", "memory", "container", wall_s=60),
    _a("B4", "in twenty processes at once", """
def main():
    for _ in range(20):
        if os.fork() == 0:
            kept = []
            try:
                while True:
                    kept.append(b"x" * (1 << 20))
            except MemoryError:
                time.sleep(60)
    return os.WTERMSIG(os.wait()[1])
""", "ok memory", "container, limits", "value == 9", wall_s=60, memory="64m"),
    _a("B4", "tables of pages that hold nothing", """
import mmap
def main():
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000
    for _ in range(4):
        held = mmap.mmap(-1, 1 << 40, flags=flags, prot=mmap.PROT_READ)
        for at in range(0, 1 << 40, 2 << 20):
            held[at]
    return "all of them"
""", "memory", "container", wall_s=60),
    _a("B4", "a map in as many pieces as there can be", """
def main():
    libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    at = libc.mmap(None, 1 << 30, 0, 0x4022, -1, 0)
    for piece in range(100_000):
        if libc.mprotect(at + piece * 8192, 4096, 1):
            return piece, errno.errorcode[ctypes.get_errno()]
""", "ok", "limits", "value[0] < 70_000 and value[1] == 'ENOMEM'", wall_s=60),
    _a("B5", "a little more every millisecond", """
def main():
    kept = []
    while True:
        kept.append(b"x" * 500_000)
        time.sleep(0.001)
""", "memory", "limits", memory="64m", wall_s=60),
    _a("B6", "a file of all the space", """
def main():
    at = 0
    try:
        for part in range(100):
            with open(f"{part}", "wb") as file:
                for _ in range(8):
                    at += file.write(b"x" * (1 << 20))
    except OSError as error:
        return at, errno.errorcode[error.errno]
""", "ok", "limits, namespaces", "value[0] <= 16 << 20 and value[1] == 'ENOSPC'"),
    _a("B6", "both scratch directories share one size", """
def fill(path):
    try:
        with open(path, "wb", 0) as file:
            while True:
                file.write(b"x" * 65536)
    except OSError:
        return os.path.getsize(path)
def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    return fill("/tmp/a") + fill("/dev/shm/a") + fill("/tmp/b")
""", "ok", "limits, namespaces", "value <= 16 << 20"),
    _a("B6", "one file over the limit", "def main():\n    with open('big', 'wb') as file:\n        file.truncate(1 << 40)", "error crash", "limits"),
    _a("B6", "a file that nobody sees", """
def main():
    kept = []
    for _ in range(40):
        fd = os.open("/tmp", os.O_TMPFILE | os.O_RDWR)
        got = refused(os.write, fd, b"x" * (1 << 20))
        if got == "ENOSPC":
            return len(kept), got
        kept.append(fd)
""", "ok", "limits, namespaces", "value[0] <= 16 and value[1] == 'ENOSPC'"),
    _a("B7", "a million empty files", """
def main():
    for made in range(1_000_000):
        got = refused(lambda: os.close(os.open(str(made), os.O_CREAT)))
        if got is not None:
            return made, got
""", "ok", "limits, namespaces", "value[0] < 5000 and value[1] == 'ENOSPC'", wall_s=60),
    _a("B7", "a million links", """
def main():
    open("one", "w").close()
    for made in range(1_000_000):
        got = refused(os.link, "one", str(made))
        if got is not None:
            return made, got
""", "ok timeout", "limits, namespaces", "value[1] in ('ENOSPC', 'EMLINK')", wall_s=4),
    _a("B9", "directories as deep as it goes", """
def main():
    for depth in range(1_000_000):
        got = refused(os.mkdir, "d" * 250) or refused(os.chdir, "d" * 250)
        if got is not None:
            return depth, got
""", "ok", "limits, namespaces", "value[0] < 5000 and value[1] == 'ENOSPC'", wall_s=60),
    # ---- output ----
    _a("B11", "stdout without end", "def main():\n    while True:\n        os.write(1, b'x' * 65536)", "timeout", "runner"),
    _a("B11", "stderr without end", "def main():\n    while True:\n        os.write(2, b'y' * 65536)", "timeout", "runner"),
    _a("B12", "a byte at a time", "def main():\n    while True:\n        os.write(1, b'z')", "timeout", "runner"),
    _a("B12", "one line of 200 MB", "def main():\n    for _ in range(200):\n        os.write(1, b'x' * (1 << 20))", "ok timeout", "runner", wall_s=5),
    _a("B12", "a result that is too large", "def main():\n    return b'x' * (32 << 20)", "output", "runner"),
    # ---- descriptors ----
    _a("B14", "files until it fails", """
def main():
    kept = []
    while True:
        got = refused(os.open, "/dev/null", os.O_RDONLY)
        if isinstance(got, str):
            return len(kept), got
        kept.append(got)
""", "ok", "limits, container", "value[0] <= 256 and value[1] == 'EMFILE'"),
    _a("B14", "pipes and pairs in every process", """
def main():
    for _ in range(15):
        if os.fork() == 0:
            kept = []
            while not isinstance(refused(lambda: kept.append(socket.socketpair())), str):
                pass
            time.sleep(30)
    time.sleep(0.5)
    return refused(lambda: len(os.pipe()))
""", "ok", "limits", "value == 2"),
    _a("B14", "descriptors in flight", """
import array
def main():
    sent, kept = 0, []
    while sent < 100_000:
        a, b = socket.socketpair()
        kept += [a, b]
        fds = array.array("i", [a.fileno()] * 100)
        for _ in range(40):
            a.setblocking(False)
            got = refused(a.sendmsg, [b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            if isinstance(got, str):
                break
            sent += 100
        if len(kept) > 200 or got == "ETOOMANYREFS":
            return sent, got
""", "ok", "limits", "isinstance(value[1], str)"),
    _a("B14", "pipes, as large as they get and full, in every process", """
import fcntl
def fill():
    held = 0
    while True:
        try:
            _, writing = os.pipe()
        except OSError:
            return held
        refused(fcntl.fcntl, writing, fcntl.F_SETPIPE_SZ, 1 << 20)
        os.set_blocking(writing, False)
        while isinstance(got := refused(os.write, writing, bytes(65536)), int):
            held += got
def main():
    for _ in range(8):
        if os.fork() == 0:
            fill()
            time.sleep(60)
    return fill() >> 20
""", "ok memory", "container, limits", "value < 256", wall_s=60),
    # ---- ipc ----
    _a("B16", "POSIX message queues", "def main():\n    return raw(240, b'x', 0o102, 0o600, None), raw(241, b'x')", "ok", "job filter, seccomp, limits, namespaces", "set(value) <= {'EPERM', 'ENOSYS'}"),
    _a("B17", "System V memory, semaphores, messages", "def main():\n    return raw(29, 0, 4096, 0o1600), raw(64, 0, 1, 0o1600), raw(68, 0, 0o1600), raw(31, 0, 0, 0, 0)", "ok", "job filter, seccomp, namespaces", "set(value) == {'EPERM'}"),
    _a("B18", "memory without a file", "def main():\n    return raw(319, b'x', 0), raw(447, 0), raw(319, b'x', 4)", "ok", "job filter, seccomp", "set(value) <= {'EPERM', 'ENOSYS'}"),
    _a("B18", "huge pages, and pages filled ahead", """
import mmap
def main():
    huge = refused(lambda: mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000))
    ahead = refused(lambda: mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE))
    return huge, ahead
""", "ok", "job filter, limits, container", "value == ('EPERM', 'ENOMEM')", memory="64m"),
    _a("B19", "locked memory", "def main():\n    return raw(149, id(0), 4096), raw(151, 3), raw(325, id(0), 4096, 1)", "ok", "job filter, seccomp, limits", "set(value) <= {'EPERM', 'ENOSYS', 'ENOMEM'}"),
    _a("B19", "locked by mmap", "import mmap\ndef main():\n    return refused(lambda: mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x2000))", "ok", "limits", "value in ('EPERM', 'EAGAIN')"),
    # ---- time ----
    _a("B20", "a loop in every process", "def main():\n    for _ in range(4):\n        os.fork()\n    while True: pass", "timeout", "container, runner"),
    _a("B20", "a loop over its CPU limit", "def main():\n    while True: pass", "timeout", "limits", cpu_s=1, wall_s=60),
    _a("B20", "a loop that ignores the signal for it", "def main():\n    signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n    while True: pass", "timeout", "limits", cpu_s=1, wall_s=60),
    _a("B21", "recursion", "def main():\n    return main()", "error", "runner", "True"),
    _a("B21", "recursion without a limit", "def main():\n    sys.setrecursionlimit(1 << 30)\n    def f(x): return [*map(f, [x])]\n    return f(1)", "crash memory error", "limits", wall_s=60),
    _a("B22", "sleep", "def main():\n    time.sleep(1000)", "timeout", "runner"),
    _a("B22", "a pipe that nobody writes to", "def main():\n    return os.read(os.pipe()[0], 1)", "timeout", "runner"),
    _a("B22", "stdin", "def main():\n    return sys.stdin.read()", "ok", "runner", "value == ''"),
    _a("B23", "all signals blocked and ignored", """
def main():
    for number in range(1, 65):
        refused(signal.signal, number, signal.SIG_IGN) if number not in (9, 19, 32, 33) else None
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True:
        time.sleep(1)
""", "timeout", "runner, namespaces"),
    _a("B24", "stopped, itself", "def main():\n    os.kill(os.getpid(), signal.SIGSTOP)\n    return 'went on'", "timeout", "runner"),
    _a("B24", "stopped, and its children", "def main():\n    os.fork()\n    os.fork()\n    os.kill(0, signal.SIGSTOP)\n    os.kill(-1, signal.SIGSTOP)\n    return 'went on'", "timeout", "runner, namespaces"),
    _a("B26", "a regular expression", "import re\ndef main():\n    return re.match('(a+)+$', 'a' * 60 + 'b')", "timeout", "runner"),
    _a("B27", "a number to the power", "def main():\n    return len(str(9 ** 9 ** 9))", "timeout memory error", "limits, runner", memory="64m"),
    _a("B27", "digits of a large number", "def main():\n    sys.set_int_max_str_digits(0)\n    return len(str(2 ** 10 ** 7))", "timeout", "runner"),
    _a("B27", "a factorial", "import math\ndef main():\n    return math.factorial(10 ** 7)", "timeout memory", "runner"),
    _a("B27", "a long text", "def main():\n    return 'a' * 10 ** 10", "memory", "limits"),
    _a("B27", "a long list", "def main():\n    return list(range(10 ** 10))", "memory", "limits"),
    # ---- bombs ----
    _a("B28", "zlib", "import zlib\ndef main():\n    it = zlib.compress(bytes(1 << 24), 9)\n    kept = []\n    while True:\n        kept.append(zlib.decompress(it))", "memory", "limits", memory="64m"),
    _a("B28", "a zip into the scratch directory", """
import zipfile
def main():
    with zipfile.ZipFile("bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(9):
            archive.writestr(str(n), bytes(4 << 20))
    return refused(lambda: zipfile.ZipFile("bomb").extractall("here"))
""", "ok", "limits", "value == 'ENOSPC'", memory="64m", wall_s=60),
    _a("B28", "entities of XML", """
from xml.etree import ElementTree
def main():
    steps = "".join(f'<!ENTITY e{n} "{(chr(38) + f"e{n - 1};") * 20}">' for n in range(1, 12))
    return len(ElementTree.fromstring(f'<!DOCTYPE x [<!ENTITY e0 "aaaaaaaaaa">{steps}]><x>&e11;</x>').text)
""", "error memory timeout", "limits", memory="64m"),
    # ---- the kernel's own ----
    _a("B30", "a core dump", "def main():\n    try:\n        resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))\n    except ValueError:\n        ctypes.string_at(0)\n    return 'there is a core'", "crash", "limits, container"),
    _a("B31", "limits raised", """
def main():
    def raised(which):
        soft, hard = resource.getrlimit(which)
        try:
            resource.setrlimit(which, (hard, hard + 1 if hard >= 0 else hard))
        except (OSError, ValueError):
            return hard < 0
        return hard >= 0 and resource.getrlimit(which)[1] > hard
    names = ("CPU", "DATA", "NOFILE", "NPROC", "FSIZE", "CORE", "MEMLOCK", "MSGQUEUE", "NICE", "RTPRIO", "SIGPENDING")
    return [name for name in names if raised(getattr(resource, f"RLIMIT_{name}"))]
""", "ok", "limits, namespaces", "list(value) == []"),
    _a("B31", "limits of other processes", "def main():\n    return [refused(resource.prlimit, pid, resource.RLIMIT_NOFILE, (4, 4)) for pid in (1, 2, 3)]", "ok", "job filter, namespaces", "set(value) <= {'EPERM', 'ESRCH'}"),
    _a("B32", "timers", """
def main():
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_IGN)
    signal.signal(signal.SIGVTALRM, signal.SIG_IGN)
    for which in (signal.ITIMER_REAL, signal.ITIMER_PROF, signal.ITIMER_VIRTUAL):
        signal.setitimer(which, 1e-6, 1e-6)
    kept = []
    while not isinstance(got := raw(283, 1, 0), str):
        raw(286, got, 0, (ctypes.c_long * 4)(0, 1000, 0, 1000), None)
        kept.append(got)
    time.sleep(0.3)
    return len(kept), got, raw(222, 1, None, (ctypes.c_int * 1)())
""", "ok", "limits, job filter", "value[0] <= 256 and value[1] == 'EMFILE' and value[2] == 'EPERM'"),
    _a("B33", "affinity, priority, scheduling", """
def main():
    return [
        refused(os.sched_setaffinity, 0, {0}), refused(os.nice, -5), refused(os.setpriority, os.PRIO_PROCESS, 0, 5),
        refused(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1)), raw(251, 1, 0, 0), raw(314, 0, None, 0),
    ]
""", "ok", "job filter", "set(value) == {'EPERM'}"),
    _a("B34", "files made and deleted", """
def main():
    until, made = time.monotonic() + 1, 0
    while time.monotonic() < until:
        name = f"{made}" + "n" * 200
        os.close(os.open(name, os.O_CREAT))
        os.unlink(name)
        refused(os.stat, f"/tmp/none{made}" + "n" * 200)
        made += 1
    return made
""", "ok", "container, namespaces", "value > 100", wall_s=60),
    _a("B35", "sync of the whole host", "def main():\n    return raw(162), raw(306, 0)", "ok", "job filter, seccomp", "set(value) == {'EPERM'}"),
    _a("B35", "fsync without end", "def main():\n    with open('f', 'wb', 0) as file:\n        while True:\n            file.write(b'x'); os.fsync(file.fileno()); file.seek(0)", "timeout", "runner, namespaces"),
    _a("B36", "devices that never end", "def main():\n    kept = 0\n    while True:\n        kept += len(open('/dev/urandom', 'rb').read(1 << 20)) + len(open('/dev/zero', 'rb').read(1 << 20))", "timeout", "runner"),
    _a("B36", "a device read to its end", "def main():\n    return len(open('/dev/zero', 'rb').read())", "memory timeout", "limits, runner", memory="64m"),
    _a("B37", "threads of the numeric libraries", """
def main():
    import numpy as np
    a = np.ones((400, 400))
    for _ in range(20):
        a = a @ a / 400
    import threading
    limits = {k: v for k, v in os.environ.items() if k.endswith("_THREADS")}
    return sorted(set(limits.values())), raw(186) == os.getpid(), refused(os.open, "/proc/self/task", os.O_RDONLY)
""", "ok", "image, container", "list(value[0]) == ['1']"),
    _a("B39", "eventfd, epoll, inotify, fanotify", """
def main():
    kept = []
    while not isinstance(got := raw(290, 0, 0), str):
        kept.append(got)
    for fd in kept:
        os.close(fd)
    return len(kept), got, raw(253), raw(294, 0), raw(300, 0, 0), raw(254, 0, b"/tmp", 1)
""", "ok", "limits, job filter, seccomp", "value[0] <= 256 and value[1] == 'EMFILE' and set(value[2:]) == {'EPERM'}"),
    _a("B40", "keys", "def main():\n    return raw(248, b'user', b'x', b'y', 1, -4), raw(249, b'user', b'x', None, -4), raw(250, 0, -4, 1)", "ok", "job filter, seccomp", "set(value) == {'EPERM'}"),
    _a("B41", "signals that wait", """
def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, [40])
    ended = raw(129, os.getpid(), 40, bytes(128))
    for sent in range(100_000):
        got = refused(os.kill, os.getpid(), 40)
        if got is not None:
            break
    return sent, got, ended
""", "ok", "limits, job filter", "value[2] == 'EPERM' and (value[1] in (None, 'EAGAIN'))"),
)  # fmt: skip
