"""What jobs leave behind, or try to (class D), and a probe that looks for all of it. Only data.

Each code has a `main()` that does its worst and returns 1 (or does not return at all, where `dies`). `PROBE` returns
everything that one job can observe of the process and the worker it runs in, as a dict; two honest jobs of one worker
see the same.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leaving:
    number: str
    title: str
    code: str
    outcomes: tuple[str, ...] = ("ok",)
    stopped_by: tuple[str, ...] = ("namespaces", "runner")


PROBE = """
import atexit, builtins, ctypes, decimal, errno, fcntl, gc, locale, logging, os, random, resource, signal, socket, sys, threading, time, warnings
import numpy as np, pandas as pd

def tree(root):
    found = []
    for directory, names, files in os.walk(os.fsencode(root)):
        found += sorted(os.path.join(directory, name) for name in names + files)
    return found

def held():
    there = {}
    for number in range(300):
        try:
            there[number] = os.fstat(number).st_mode >> 12
        except OSError:
            pass
    return there

def open_files():
    sizes = [fcntl.fcntl(number, fcntl.F_GETPIPE_SZ) for number in (1, 2)]
    made = os.pipe()
    sizes += [fcntl.fcntl(number, fcntl.F_GETPIPE_SZ) for number in made]
    asked = [fcntl.fcntl(number, what) for number in (0, 1, 2) for what in (fcntl.F_GETOWN, fcntl.F_GETSIG)]
    options = []
    for number in [number for number, kind in held().items() if kind == 12]:
        with socket.socket(fileno=os.dup(number)) as sock:  # sizes of its buffers, where it peeks, marks of its messages
            options += [sock.getsockopt(socket.SOL_SOCKET, n) for n in (3, 7, 8, 42, 16, 34, 20, 21, 15, 36)]
        options.append(fcntl.fcntl(number, fcntl.F_GETFL))
    for number in made:
        os.close(number)
    return sizes, asked, options

def free():
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        fcntl.flock(null, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(null)
    return True

def devices():
    found = {name: os.lstat("/dev/" + name) for name in sorted(os.listdir("/dev")) if name != "shm"}
    return {name: (of.st_atime_ns, of.st_mtime_ns) for name, of in found.items()}

def alive():
    there = []
    for pid in range(1, 400):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        except PermissionError:
            pass
        there.append(pid)
    return there

def digest(place):
    return sorted((name, type(value).__name__, getattr(value, "__module__", None) and str(value.__module__)) for name, value in vars(place).items())

def interpreter():
    import asyncio, codecs, copyreg, faulthandler, functools, linecache, mimetypes, re, tracemalloc, zlib
    libc = ctypes.CDLL(None)
    libc.abs.restype = ctypes.c_int
    try:
        known = codecs.lookup("evil").name
    except LookupError:
        known = ""
    return {
        "digits": sys.get_int_max_str_digits(), "dlopen": sys.getdlopenflags(), "stack": threading.stack_size(), "wait": socket.getdefaulttimeout(),
        "faults": faulthandler.is_enabled(), "traced": tracemalloc.is_tracing(), "codec": known, "reducers": len(copyreg.dispatch_table),
        "buffer": np.getbufsize(), "policy": type(asyncio.get_event_loop_policy()).__name__, "lines": sorted(linecache.cache),
        "types": mimetypes.guess_type("x.csv"), "prec": decimal.DefaultContext.prec, "hooks": repr(sys.get_asyncgen_hooks()),
        "pattern": repr(re.match("a+", "aab")), "cached": re.compile("evil|x").pattern, "wakeup": signal.set_wakeup_fd(-1), "abs": libc.abs(-7),
        "draws": random.random() == 0.13436424411240122, "numpy draws": float(np.random.random()) == 0.417022004702574,
        "intern": sys.intern("evil name"), "virtual": issubclass(int, os.PathLike), "weak": zlib.crc32(b"x"), "frozen": gc.get_freeze_count() > 0,
        "wraps": functools.WRAPPER_ASSIGNMENTS, "start": __import__("multiprocessing").get_start_method(allow_none=True),
    }

def main():
    libc = ctypes.CDLL(None, use_errno=True)
    umask = os.umask(0)
    os.umask(umask)
    modules = sorted(name for name in sys.modules if name not in ("job", "__main__"))
    return {
        "files": {place: tree(place) for place in ("/tmp", "/dev/shm", "/run", "/dev/mqueue", os.environ["HOME"])},
        "room": [(os.statvfs(p).f_bfree, os.statvfs(p).f_ffree) for p in ("/tmp", "/dev/shm")],
        "mounts": [os.stat(p).st_dev == os.stat("/").st_dev for p in ("/", "/tmp", "/dev/shm", "/proc", "/sys", "/usr", "/etc", "/run")],
        "streams": [fcntl.fcntl(number, fcntl.F_GETFL) for number in (0, 1, 2)], "null is free": free(), "open files": open_files(), "devices": devices(),
        "processes": alive(), "descriptors": held(), "threads": threading.active_count(),
        "identity": (os.getpid(), os.getppid(), os.getpgid(0), os.getsid(0), os.getuid(), os.uname()[1]),
        "environment": dict(os.environ), "directory": os.getcwd(), "umask": umask,
        "locale": locale.setlocale(locale.LC_ALL), "zone": (time.tzname, time.timezone),
        "warnings": [str(each) for each in warnings.filters], "numpy": (np.geterr(), np.get_printoptions()["precision"]),
        "pandas": {name: str(pd.get_option(name)) for name in ("display.max_rows", "display.width", "display.precision")},
        "decimal": str(decimal.getcontext()), "recursion": sys.getrecursionlimit(), "switch": sys.getswitchinterval(),
        "path": (list(sys.path), [type(each).__name__ for each in sys.meta_path], len(sys.path_hooks)),
        "hooks": (sys.excepthook is sys.__excepthook__, sys.gettrace() is None, sys.getprofile() is None, sys.displayhook is sys.__displayhook__),
        "builtins": digest(builtins), "os": digest(os), "modules": modules, "argv": list(sys.argv),
        "functions": (np.mean([1, 2, 3]), pd.Series([1, 2]).sum(), len([1, 2]), repr(sum([1, 2])), np.array([1.5]).sum(), random.Random(1).random()),
        "signals": {n: str(signal.getsignal(n)) for n in range(1, 65)}, "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "pending": sorted(signal.sigpending()), "timers": [signal.getitimer(n) for n in (0, 1, 2)], "alarm": signal.alarm(0),
        "limits": [resource.getrlimit(n) for n in range(16) if n != resource.RLIMIT_DATA],
        "scheduling": (os.getpriority(0, 0), sorted(os.sched_getaffinity(0)), os.sched_getscheduler(0)),
        "collector": (gc.isenabled(), gc.get_threshold(), gc.callbacks == []), "logging": (logging.root.level, len(logging.root.handlers)),
        "dumpable": libc.prctl(3, 0, 0, 0, 0), "name": sys.stdout.encoding, "ends": atexit._ncallbacks(),
        "interpreter": interpreter(), "clock": abs(time.time() - time.clock_gettime(time.CLOCK_REALTIME)) < 1, "hash": hash("text"),
    }
"""


def _l(number: str, title: str, code: str, *outcomes: str, **more: object) -> Leaving:
    text = "import ctypes, os, signal, socket, struct, sys, threading, time\n" + code.strip("\n") + "\n"
    return Leaving(number, title, text, outcomes or ("ok",), **more)  # type: ignore[arg-type]


_DAEMON = """
def daemon(action):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in range(1, 65):
                try: signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError): pass
            action()
            os._exit(0)
        os._exit(0)
"""

LEAVINGS = (
    # ---- processes ----
    _l("D1", "a daemon: setsid, double fork, every signal ignored", _DAEMON + """
def main():
    daemon(lambda: time.sleep(600))
    os.wait()
    return 1
"""),
    _l("D1", "daemons that fork as fast as they can", _DAEMON + """
def spawn():
    while True:
        try:
            if os.fork() == 0: continue
        except OSError: pass
        time.sleep(0.001)
def main():
    for _ in range(4): daemon(spawn)
    time.sleep(0.2)
    return 1
""", "ok", "error"),
    _l("D1", "daemons that write to every scratch directory for as long as they live", _DAEMON + """
def write():
    n = 0
    while True:
        n += 1
        for place in ("/tmp", "/dev/shm", "/tmp/work"):
            try:
                with open(f"{place}/{n % 100}", "w") as file: file.write("still here")
            except OSError: pass
def main():
    for _ in range(3): daemon(write)
    time.sleep(0.2)
    return 1
"""),
    _l("D1", "a daemon left by a job that dies", _DAEMON + """
def main():
    daemon(lambda: time.sleep(600))
    os.kill(os.getpid(), signal.SIGKILL)
""", "crash"),
    _l("D1", "a daemon that keeps the job's output open", _DAEMON + """
def main():
    daemon(lambda: [print("later", flush=True) or time.sleep(0.01) for _ in range(10000)])
    return 1
"""),
    _l("D1", "a thread that goes on after the answer", """
def main():
    def go():
        while True:
            try: open(f"/tmp/{time.monotonic_ns()}", "w").close()
            except OSError: pass
    for _ in range(4): threading.Thread(target=go, daemon=True).start()
    return 1
"""),
    _l("D3", "a subreaper that gathers orphans and outlives the job", """
def main():
    libc = ctypes.CDLL(None)
    libc.prctl(36, 1, 0, 0, 0)
    for _ in range(5):
        if os.fork() == 0:
            libc.prctl(36, 1, 0, 0, 0)
            libc.prctl(1, 0, 0, 0, 0)
            if os.fork() == 0: time.sleep(600)
            os._exit(0)
    return 1
""", stopped_by=("job filter", "namespaces")),
    _l("D4", "stopped processes", """
def main():
    pids = []
    for _ in range(6):
        if (pid := os.fork()) == 0:
            os.setsid()
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(600)
        pids.append(pid)
    for pid in pids: os.waitpid(pid, os.WUNTRACED)
    return 1
"""),
    _l("D4", "the job's own process group stopped", """
def main():
    if os.fork() == 0:
        os.setpgid(0, 0); os.killpg(0, signal.SIGSTOP); os._exit(0)
    time.sleep(0.1)
    return 1
"""),
    _l("D27", "zombies", """
def main():
    for _ in range(15):
        if os.fork() == 0: os._exit(0)
    time.sleep(0.1)
    return 1
"""),
    _l("D27", "orphaned zombies, handed to the namespace's init", """
def main():
    for _ in range(6):
        if os.fork() == 0:
            if os.fork() == 0: os._exit(0)
            os._exit(0)
    for _ in range(6): os.wait()
    time.sleep(0.1)
    return 1
"""),
    # ---- files ----
    _l("D5", "files with odd names in every place", """
def main():
    for place in (b"/tmp", b"/dev/shm", os.fsencode(os.environ["HOME"])):
        for name in (b"a\\nb", b"x" * 255, b"-rf", b"\\xff\\xfe", b"~", b"*", b" ", b"\\x01\\x1b[2J", b"...", b"$(x)", "é".encode("latin-1")):
            open(os.path.join(place, name), "wb").write(b"left")
        os.symlink(b"/etc/passwd", os.path.join(place, b"link"))
        try: os.mkfifo(os.path.join(place, b"fifo"))
        except OSError: pass
        os.mkdir(os.path.join(place, b"closed"), 0); os.symlink(b"loop", os.path.join(place, b"loop"))
    return 1
"""),
    _l("D5", "a tree a thousand directories deep, closed to its owner", """
def main():
    start = os.open(".", os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d" * 100); os.chdir("d" * 100)
    os.chmod(".", 0); os.fchdir(start)
    return 1
"""),
    _l("D5", "scratch space and inodes used up", """
def main():
    try:
        for n in range(10**6): open(f"/dev/shm/{n}", "w").close()
    except OSError: pass
    try: open("/tmp/one", "w").close()
    except OSError: pass
    return 1
"""),
    _l("D5", "an unlinked file held by a daemon", _DAEMON + """
def main():
    fd = os.open("/dev/shm/held", os.O_CREAT | os.O_RDWR); os.unlink("/dev/shm/held"); os.write(fd, b"x" * 4_000_000)
    daemon(lambda: time.sleep(600))
    return 1
"""),
    _l("D5", "its own work directory replaced", """
import shutil
def main():
    os.chdir("/tmp"); shutil.rmtree("/tmp/work"); os.symlink("/dev/shm", "/tmp/work"); os.chmod("/tmp", 0o777)
    return 1
"""),
    # ---- state of the process ----
    _l("D8", "environment, directory, umask, locale, zone, warnings, options", """
import locale, warnings, decimal, gc, numpy as np, pandas as pd
def main():
    os.environ.clear(); os.environ.update(PATH="/evil", LD_PRELOAD="/tmp/x", TZ="Asia/Tokyo", HOME="/"); time.tzset()
    os.chdir("/"); os.umask(0); warnings.simplefilter("error"); np.seterr(all="raise"); np.set_printoptions(precision=1)
    pd.set_option("display.max_rows", 1); pd.set_option("display.precision", 1); decimal.getcontext().prec = 3
    try: locale.setlocale(locale.LC_ALL, "C")
    except locale.Error: pass
    sys.setrecursionlimit(400); sys.setswitchinterval(1); gc.disable(); sys.path.insert(0, "/tmp"); sys.argv[:] = ["evil"]
    return 1
"""),
    _l("D8", "options, caches and registries of the interpreter and its libraries", """
import asyncio, codecs, copyreg, decimal, faulthandler, gc, linecache, mimetypes, multiprocessing, random, re, numpy as np
def main():
    sys.set_int_max_str_digits(0); sys.setdlopenflags(0x102); threading.stack_size(1 << 20); socket.setdefaulttimeout(0.001)
    faulthandler.enable(); np.setbufsize(16384)
    codecs.register(lambda name: codecs.lookup("utf-8") if name == "evil" else None); copyreg.pickle(int, lambda it: (str, ("evil",)))
    asyncio.set_event_loop_policy(type("Evil", (asyncio.DefaultEventLoopPolicy,), {})()); linecache.cache["<job>"] = (4, None, ["evil"], "<job>")
    mimetypes.add_type("evil/evil", ".csv"); decimal.DefaultContext.prec = 2; sys.set_asyncgen_hooks(firstiter=print, finalizer=print)
    re._cache.clear(); re._cache[(str, "a+", 0)] = re.compile("evil"); signal.set_wakeup_fd(-1); multiprocessing.set_start_method("spawn", force=True)
    random.seed(1); np.random.seed(1); os.PathLike.register(int); gc.unfreeze(); gc.set_threshold(999, 9, 9)
    return 1
"""),
    _l("D9", "code and tables of the C library overwritten in memory", """
import mmap
def main():
    libc = ctypes.CDLL(None)
    at = ctypes.cast(libc.abs, ctypes.c_void_p).value
    page = at & ~4095
    if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(8192), 7) == 0:
        ctypes.memmove(at, bytes.fromhex("b80a000000c3"), 6)  # mov eax, 10; ret
    return 1
"""),
    _l("D9", "memory mapped over everything that it may map over", """
def main():
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    for _ in range(200): libc.mmap(None, ctypes.c_size_t(1 << 20), 7, 0x22, -1, ctypes.c_long(0))
    libc.mmap(ctypes.c_void_p(id(main) & ~4095), ctypes.c_size_t(4096), 3, 0x32, -1, ctypes.c_long(0))
    return 1
""", "ok", "error", "crash"),
    _l("D15", "flags and locks of its standard streams", """
import fcntl
def main():
    for number in (0, 1, 2):
        fcntl.fcntl(number, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND | 0o20000)
        try: fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError: pass
    fcntl.fcntl(0, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
    return 1
"""),
    _l("D15", "so many pipes that the kernel makes the next ones of its user small", """
import fcntl
def main():
    kept = []
    try:
        while True:
            kept.append(os.pipe())
            fcntl.fcntl(kept[-1][1], fcntl.F_SETPIPE_SZ, 1 << 20)
    except OSError:
        kept += [os.pipe() for _ in range(20)]
    if fcntl.fcntl(kept[-1][1], fcntl.F_GETPIPE_SZ) > 8192: return 0
    time.sleep(0.2)  # the runner makes the pipes of the next child meanwhile
    return 1
""", stopped_by=("runner",)),
    _l("D12", "the times of each file that it reaches", """
def main():
    for place, names, files in os.walk("/"):
        for name in [".", *names, *files]:
            for moment in (None, (1, 1)):
                try: os.utime(os.path.join(place, name), moment, follow_symlinks=False)
                except OSError: pass
    return 1
""", stopped_by=("namespaces", "container")),
    _l("D15", "descriptors at their highest numbers, and locks on files of the image", """
import fcntl
def main():
    kept = []
    for path in ("/usr/bin/python3", "/etc/passwd", "/opt/pool/runner/__main__.py"):
        fd = os.open(path, os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB); kept.append(fd)
    for number in range(200, 250): os.dup2(kept[0], number)
    if os.fork() == 0:
        os.setsid(); time.sleep(600)
    return 1
"""),
    _l("D9", "modules and builtins patched", """
import builtins, json, random, numpy as np, pandas as pd
def main():
    for module, name in ((builtins, "sum"), (builtins, "print"), (os, "getpid"), (np, "mean"), (json, "dumps"), (random, "random"), (pd.Series, "sum")):
        setattr(module, name, lambda *a, **k: "patched")
    builtins.planted = os.planted = 1
    sys.modules["planted"] = os; sys.modules["json"] = None; sys.meta_path.insert(0, object()); sys.path_hooks.clear()
    runner = [module for name, module in sys.modules.items() if name.startswith(("runner", "pool"))]
    for module in runner: vars(module).clear()
    return 1
""", "ok", "error", "crash"),
    _l("D9", "the memory of objects that every child inherits, overwritten", """
import numpy as np
def main():
    for value in (1, 0, True, ()):
        pass
    buffer = (ctypes.c_char * 32).from_address(id("a constant of this program") + 48)
    ctypes.memset(ctypes.addressof(buffer), 0x41, 8)
    ctypes.c_long.from_address(id(257 - 0) + 24).value = 7
    for function in (np.mean, np.sum, os.path.join):
        function.__code__ = (lambda *a, **k: "patched").__code__ if not hasattr(function, "__wrapped__") else function.__code__
    return 1
""", "ok", "error", "crash"),
    _l("D10", "atexit, threads, finalizers, trace and audit hooks", """
import atexit, gc, threading
class Late:
    def __del__(self): open("/tmp/late", "w").write("late")
def main():
    atexit.register(lambda: open("/dev/shm/late", "w").write("late")); sys.addaudithook(lambda *a: None)
    sys.settrace(lambda *a: None); sys.setprofile(lambda *a: None); gc.callbacks.append(lambda *a: None); threading.settrace(lambda *a: None)
    os.late = Late(); sys.excepthook = sys.unraisablehook = sys.displayhook = lambda *a: None
    os.register_at_fork(before=lambda: None, after_in_child=lambda: open("/tmp/forked", "w").close(), after_in_parent=lambda: None)
    return 1
"""),
    _l("D12", "byte code, start-up files and caches of libraries poisoned", """
import site
def main():
    tried = 0
    places = ["/usr/lib/python3.11/__pycache__/x.pyc", "/usr/lib/python3/dist-packages/evil.pth", "/opt/pool/runner/__pycache__/child.pyc",
              "/usr/lib/python3.11/sitecustomize.py", "/etc/python3.11/sitecustomize.py"]
    places += [f"{place}/{name}" for place in (os.environ["HOME"], "/tmp", "/dev/shm") for name in ("usercustomize.py", "sitecustomize.py", "json.py",
               "numpy.py", ".pth", "pandas.py", "matplotlibrc")]
    for path in places:
        try: open(path, "w").write("raise SystemExit('poisoned')"); tried += 1
        except OSError: pass
    os.makedirs(os.path.join(os.environ["HOME"], ".local/lib/python3.11/site-packages"), exist_ok=True)
    return 1
"""),
    # ---- what the kernel keeps ----
    _l("D13", "System V ipc, message queues, named semaphores", """
def main():
    libc = ctypes.CDLL(None, use_errno=True)
    for number in (29, 64, 68): libc.syscall(number, 4242, 4096, 0o1777)
    libc.syscall(240, b"/left", 0o102, 0o666, None)
    for name in ("sem.left", "psm_left", "left"): open(f"/dev/shm/{name}", "w").write("left")
    import _posixshmem
    fd = _posixshmem.shm_open("/left2", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    os.ftruncate(fd, 4096)
    return 1
""", stopped_by=("job filter", "seccomp", "namespaces")),
    _l("D14", "an abstract socket, and pairs held by a daemon", _DAEMON + """
def main():
    try:
        sock = socket.socket(socket.AF_UNIX); sock.bind("\\0left"); sock.listen()
    except OSError: pass
    pairs = [socket.socketpair() for _ in range(20)]
    daemon(lambda: time.sleep(600))
    return 1
""", stopped_by=("job filter", "namespaces", "landlock")),
    _l("D15", "timers, alarms and descriptors that tick", """
def main():
    libc = ctypes.CDLL(None, use_errno=True)
    signal.signal(signal.SIGALRM, signal.SIG_IGN); signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    signal.setitimer(signal.ITIMER_PROF, 50); signal.alarm(3)
    for _ in range(50): libc.timerfd_create(1, 0)
    libc.syscall(254, 0, b"/tmp", 1); libc.syscall(300, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    return 1
"""),
    _l("D16", "its own limits, niceness and affinity at their worst", """
import resource
def main():
    for n in range(16):
        try: resource.setrlimit(n, (0 if n not in (0, 2, 3, 7) else resource.getrlimit(n)[0], resource.getrlimit(n)[1]))
        except (OSError, ValueError): pass
    for action in (lambda: os.nice(19), lambda: os.sched_setaffinity(0, {0}), lambda: os.sched_setscheduler(0, 5, os.sched_param(0))):
        try: action()
        except OSError: pass
    return 1
"""),
    _l("D17", "session and terminal", """
def main():
    if os.fork() == 0:
        os.setsid()
        for path in ("/dev/tty", "/dev/ptmx", "/dev/pts/ptmx"):
            try: os.open(path, os.O_RDWR)
            except OSError: pass
        os._exit(0)
    os.wait()
    return 1
"""),
    _l("D18", "streams closed, replaced, half a line written", """
def main():
    os.write(1, b"half a line"); os.write(2, b"\\xff\\xfe")
    for n in range(3): os.dup2(os.open("/dev/null", os.O_RDONLY), n)
    return 1
"""),
    _l("D18", "every descriptor closed, the channel too", "def main():\n    os.closerange(0, 256)\n    return 1", "crash"),
    _l("D20", "process ids used up and used again", """
def main():
    for _ in range(60):
        if os.fork() == 0: os._exit(0)
        os.wait()
    return 1
"""),
    _l("D24", "key rings", """
def main():
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(248, b"user", b"left", b"secret", 6, ctypes.c_long(-4)); libc.syscall(250, 1, b"ring")
    return 1
""", stopped_by=("job filter", "seccomp")),
    _l("D25", "the clock, the zone, the host name", """
def main():
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(227, 0, struct.pack("qq", 0, 0)); libc.syscall(164, struct.pack("qq", 0, 0), None); libc.syscall(170, b"evil", 4)
    libc.syscall(159, struct.pack("I", 1).ljust(208, b"\\0"))
    return 1
""", stopped_by=("job filter", "seccomp", "container")),
    _l("D2", "a job killed at its deadline amid all of it", _DAEMON + """
def main():
    for n in range(4): daemon(lambda: time.sleep(600))
    for n in range(50): open(f"/tmp/{n}", "w").write("x" * 1000)
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True: pass
""", "timeout"),
)  # fmt: skip
