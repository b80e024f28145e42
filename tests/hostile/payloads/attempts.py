"""What a job tries with the calls that it may make and the descriptors that it has. Only data.

Each code has a `main()` that returns the words that its attempts come to; `call` and `attempt` are those of the prelude
in alone.py, `channel()` is the job's channel to the runner, and outside a pair with another process at its other end.
`inside`: the words that a job may see. `works`: one that a process without a sandbox sees, "" if it is not tried there.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempt:
    number: str
    title: str
    code: str
    inside: frozenset[str]
    works: str = ""
    stopped_by: tuple[str, ...] = ("job filter",)


def _a(number: str, title: str, inside: str, code: str, *, works: str = "", by: str = "job filter") -> Attempt:
    return Attempt(number, title, code.strip("\n") + "\n", frozenset(inside.split()), works, tuple(by.split(", ")))


CHANNEL = """
import stat
def channel():
    sockets = (n for n in range(3, 256) if attempt(lambda: os.fstat(n)) == "ok" and stat.S_ISSOCK(os.fstat(n).st_mode))
    number = next(sockets, None)
    return socket.socket(fileno=os.dup(number)) if number is not None else PAIR[0]
"""
#: Outside, the other end belongs to the process that runs the tests' program; a fork of it makes the attempts.
PAIR = "import socket\nPAIR = socket.socketpair()\n"

ATTEMPTS = (
    # ---- the process at the other end of the channel ----
    _a("C6", "a pidfd of the runner, from the socket that it has made", "ENOPROTOOPT EINVAL ESRCH EPERM ENODATA", """
def main():
    try:
        fd = struct.unpack("i", channel().getsockopt(socket.SOL_SOCKET, 77, 4))[0]  # SO_PEERPIDFD
    except OSError as error:
        return [errno.errorcode[error.errno]]
    return [attempt(lambda: signal.pidfd_send_signal(fd, 0)), call(438, fd, 0, 0)]
""", works="ok", by="namespaces, landlock, job filter"),
    _a("C6", "the process at the other end of the channel, by number", "pid-0 ESRCH EPERM EINVAL", """
def main():
    pid, _, _ = struct.unpack("3i", channel().getsockopt(socket.SOL_SOCKET, 17, 12))  # SO_PEERCRED
    return [attempt(lambda: os.kill(pid, 0))] if pid else ["pid-0"]
""", works="ok", by="namespaces"),
    _a("C6", "credentials of others, sent to the runner", "EPERM EINVAL", """
def main():
    told = []
    for pid, uid in ((1, 0), (os.getpid(), 0), (1, os.getuid()), (os.getppid(), os.getuid())):
        told.append(attempt(lambda: channel().sendmsg([], [(socket.SOL_SOCKET, 2, struct.pack("3i", pid, uid, uid))])))
    return told
""", works="ok", by="namespaces"),
    _a("C6", "options of the channel: credentials of each message, its buffers, its owner", "EPERM", """
def main():
    sock = channel()
    told = [attempt(lambda: sock.setsockopt(socket.SOL_SOCKET, n, 1)) for n in (16, 76, 7, 8, 33, 29)]
    told += [call(16, sock.fileno(), n, struct.pack("i", os.getpid())) for n in (0x8901, 0x8902, 0x5452, 0x89E0)]
    return told
""", works="ok"),
    _a("C6", "addresses of the zygote and the init, by their lists of locks", "EPERM ESRCH", """
def main():
    at = ctypes.create_string_buffer(16)
    return [call(274, pid, at, ctypes.byref(at, 8)) for pid in {1, os.getppid(), max(1, os.getpid() - 1)} - {0, os.getpid()}]
""", works="ok", by="namespaces"),
    _a("D3", "children of others, waited for by every flag", "ECHILD EPERM EINVAL EBADF ESRCH", """
def main():
    flags = 4 | 1 | 0x01000000 | 0x40000000 | 0x80000000
    told = [call(247, kind, number, None, 4 | 1 | more, None) for kind, number in ((0, 0), (1, 1), (2, 0)) for more in (0, 0x40000000, 0x80000000)]
    fd = os.pidfd_open(1)
    return told + [call(247, 3, fd, None, 4 | 1, None)] + [call(61, -1, None, 1 | more, None) for more in (0, 0x40000000, 0x80000000, 0x20000000)]
""", by="namespaces"),
    # ---- process options ----
    _a("C41", "seventeen options of prctl", "EPERM", """
def main():
    options = ((35, 8, 0), (0x59616D61, -1, 0), (29, 1, 0), (31, 0, 0), (33, 0, 0), (41, 1, 0), (57, 0, 0), (62, 1, 0), (59, 0, 0),
               (53, 0, 4), (65, 1, 0), (26, 1, 0), (8, 1, 0), (67, 1, 0), (45, 0, 0), (22, 2, 0), (69, 0, 0))
    return [call(157, number, ctypes.c_long(one), ctypes.c_long(two), 0, 0) for number, one, two in options]
""", works="ok"),
    _a("C41", "ioctls of files, file systems, namespaces, pidfds and filters", "EPERM", """
def main():
    fd, pid = os.open("/tmp", os.O_RDONLY), os.pidfd_open(os.getpid())
    asked = (0x40086602, 0x80086601, 0xC0045877, 0xC0045878, 0xC0185879, 0x40049409, 0xB701, 0xB702, 0xC0502100, 0xC040FF0B,
             0x127F, 0x125D, 0xC008AE00, 0x5412, 0x5423, 0x8914)
    return [call(16, one, number, ctypes.create_string_buffer(256)) for number in asked for one in (fd, pid)]
""", works="ENOTTY"),
    _a("C41", "a filter that tells another process, and one that has no other effect", "EPERM", """
def main():
    told = [call(317, 1, flags, struct.pack("HxxxxxxQ", 1, 0)) for flags in (0, 8, 1, 2, 4)]
    return told + [call(317, 2, 0, struct.pack("I", 0x7FC00000)), call(157, 22, 2, 0, 0, 0)]
""", works="EFAULT", by="job filter"),
    _a("C10", "timers of the whole machine", "EPERM EINVAL", """
def main():
    return [call(283, clock, 0) for clock in (8, 9)] + [call(222, clock, None, ctypes.create_string_buffer(8)) for clock in (8, 9)]
""", works="ok", by="job filter, container"),
    # ---- memory ----
    _a("C26", "a file of the image, written through its mapping", "EACCES EINVAL EPERM EFAULT EROFS EBADF", """
def main():
    fd = os.open("/usr/bin/env" if os.path.exists("/usr/bin/env") else "/etc/passwd", os.O_RDONLY)
    libc_mmap = LIBC.mmap
    libc_mmap.restype = ctypes.c_void_p
    told = []
    for protection in (2, 3, 7):
        at = libc_mmap(None, ctypes.c_size_t(4096), protection, 1, fd, ctypes.c_long(0))
        told.append("ok" if at != ctypes.c_void_p(-1).value else errno.errorcode[ctypes.get_errno()])
    at = ctypes.c_void_p(libc_mmap(None, ctypes.c_size_t(4096), 1, 1, fd, ctypes.c_long(0)))
    told.append(call(10, at, ctypes.c_long(4096), 3))
    told += [call(28, at, ctypes.c_long(4096), advice) for advice in (9, 23, 100)]
    return told + [call(285, fd, 3, ctypes.c_long(0), ctypes.c_long(4096)), call(77, fd, ctypes.c_long(0))]
""", by="container, landlock"),
    _a("C7", "pages of its arguments, dug out of the file that they are from", "EACCES EINVAL EPERM", """
def main():
    at = ctypes.c_void_p((id(os) // 4096) * 4096)
    return [call(28, at, ctypes.c_long(4096), advice) for advice in (9, 12345)]
""", by="namespaces"),
    _a("C38", "memory files, by name and by every flag", "EPERM ENOENT ENOSYS", """
def main():
    told = [call(319, b"x", flags) for flags in (0, 1, 2, 4, 8, 16, 3)] + [call(447, 0)]
    return told + [attempt(lambda: os.open("/dev/userfaultfd", os.O_RDWR)), attempt(lambda: os.open("/dev/hugepages", os.O_RDONLY))]
""", works="ok", by="job filter, seccomp"),
    _a("C38", "a file of the scratch space sealed, mapped to run, and run by its descriptor", "EPERM EINVAL EACCES", """
def main():
    fd = os.open("/dev/shm/x", os.O_CREAT | os.O_RDWR, 0o700)
    os.unlink("/dev/shm/x")
    os.write(fd, b"\\xc3" * 4096)
    LIBC.mmap.restype = ctypes.c_void_p
    told = [attempt(lambda: fcntl.fcntl(fd, 1033, 8))]
    for flags in (1, 2):
        at = LIBC.mmap(None, ctypes.c_size_t(4096), 5, flags, fd, ctypes.c_long(0))
        told.append("ok" if at != ctypes.c_void_p(-1).value else errno.errorcode[ctypes.get_errno()])
    at = ctypes.c_void_p(LIBC.mmap(None, ctypes.c_size_t(4096), 1, 2, fd, ctypes.c_long(0)))
    told.append(call(10, at, ctypes.c_long(4096), 5))
    return told + [call(322, fd, b"", None, None, 0x1000)]
""", works="ok", by="namespaces, landlock, job filter"),
    # ---- paths ----
    _a("C8", "out of /proc/self/fd, by dots and by openat2", "ENOENT EXDEV EACCES ENOTDIR ELOOP only-fd", """
def main():
    fd = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    told = []
    for path in ("..", "../..", "../../..", "../status", "../../1", "../maps", "../../self/status", "../task"):
        try:
            there = os.open(path, os.O_RDONLY, dir_fd=fd)
            names = set(os.listdir(there)) if stat.S_ISDIR(os.fstat(there).st_mode) else {path}
            told.append("only-fd" if names <= {"fd", "self", "maps"} or "etc" in names and "1" not in names else f"saw {sorted(names)[:9]}")
        except OSError as error:
            told.append(errno.errorcode[error.errno])
    return told
""", by="namespaces"),
    _a("C31", "files of the image linked, exchanged, renamed, cut and touched", "EROFS EXDEV EACCES EPERM ENOENT EBUSY EINVAL", """
def main():
    open("/tmp/mine", "w").close()
    fd = os.open("/etc/passwd", os.O_RDONLY)
    told = [attempt(lambda: os.link("/etc/passwd", "/tmp/passwd")), attempt(lambda: os.rename("/etc/passwd", "/tmp/passwd"))]
    told += [attempt(lambda: os.link(f"/proc/self/fd/{fd}", "/tmp/passwd", follow_symlinks=True)), call(316, -100, b"/tmp/mine", -100, b"/etc/passwd", 2)]
    told += [attempt(lambda: os.truncate("/etc/passwd", 0)), attempt(lambda: os.utime("/etc/passwd")), attempt(lambda: os.chmod("/etc/passwd", 0o777))]
    told += [attempt(lambda: os.utime(fd)), attempt(lambda: os.fchmod(fd, 0o777)), attempt(lambda: os.unlink("/etc/passwd"))]
    told += [attempt(lambda: os.symlink("/tmp", "/etc/link")), attempt(lambda: os.mkdir("/etc/there")), attempt(lambda: os.rmdir("/tmp")), attempt(lambda: os.rename("/tmp/mine", "/dev/shm/mine"))]
    return told
""", by="container, landlock, namespaces"),
    _a("C28", "devices, fifos and sockets in the scratch space", "EPERM EACCES", """
def main():
    told = [call(133, b"node%d" % kind, kind, device) for kind, device in ((0o20666, 0x103), (0o60666, 0x107), (0o140666, 0))]
    with socket.socketpair()[0] as sock:
        told.append(attempt(lambda: sock.bind("bound")))
    return told
""", works="ok", by="job filter, landlock, namespaces"),
    _a("C41", "chains of epoll, loops of them, and watches that keep a system awake", "ELOOP EINVAL EPERM done", """
import select
def main():
    chain = [select.epoll() for _ in range(12)]
    told = {attempt(lambda: one.register(other.fileno())) for one, other in zip(chain, chain[1:])} - {"ok"}
    told.add(attempt(lambda: chain[-1].register(chain[0].fileno())))
    return sorted(told - {"ok"}) + ["done"]
""", works="ELOOP", by="namespaces"),
    _a("C36", "datagrams to paths and names, through a pair", "EPERM EISCONN ECONNREFUSED ENOENT EACCES EINVAL EOPNOTSUPP", """
def main():
    told = []
    for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM):
        left, right = socket.socketpair(socket.AF_UNIX, kind)
        right.close()
        for to in ("/run/pool/link.sock", "\\0nobody", "/dev/log", "/run/systemd/notify", ""):
            told.append(attempt(lambda: left.sendto(b"x", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, to)))
            told.append(attempt(lambda: left.sendmsg([b"x"], [], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, to)))
            told.append(attempt(lambda: left.connect(to)))
    return sorted(set(told) - {"EPIPE", "ECONNRESET"}) or ["EPERM"]
""", by="job filter, landlock, namespaces"),
    # ---- files that all workers have ----
    _a("C42", "what is in the page cache, by reads that do not wait", "EPERM", """
def main():
    at = ctypes.create_string_buffer(64)
    told = []
    for path in ("/etc/passwd", os.__file__):
        fd = os.open(path, os.O_RDONLY)
        for flags in (8, 128, 8 | 1):  # RWF_NOWAIT, RWF_DONTCACHE
            told.append(call(327, fd, struct.pack("QQ", ctypes.addressof(at), 64), *map(ctypes.c_long, (1, 0, 0, flags))))
    return told
""", works="ok"),
    _a("C42", "files that others have opened, by a search that only the cache answers", "ENOSYS", """
def main():
    how = struct.pack("QQQ", 0, 0, 0x20)  # RESOLVE_CACHED
    return [call(437, -100, path.encode(), how, ctypes.c_long(24)) for path in (os.__file__, "/usr/share/zoneinfo/Africa/Lagos")]
""", works="ok"),
    _a("C42", "reads that go past the page cache to the disk", "EPERM", """
def main():
    fd = os.open("/etc/passwd", os.O_RDONLY)
    told = [attempt(lambda: os.open(path, os.O_RDONLY | os.O_DIRECT)) for path in ("/etc/passwd", os.__file__)]
    return told + [call(2, b"/etc/passwd", os.O_DIRECT), call(72, fd, 4, os.O_DIRECT)]
""", works="ok"),
    _a("D24", "the kernel's count of sockets, which goes on from job to job", "EPERM", """
def main():
    left, right = socket.socketpair()
    return [attempt(lambda: each.getsockopt(socket.SOL_SOCKET, option, 8)) for option in (57, 71) for each in (left, right)]
""", works="ok"),
    # ---- clones ----
    _a("C2", "clones that leave their parent, its namespace or its reaper", "EPERM ENOSYS EINVAL", """
def main():
    wanted = (0x8000, 0x8000 | 17, 0x2000 | 17, 0x00800000 | 17, 0x80000000 | 17, 0x02000000 | 17, 0x80 | 17, 0x100 | 0x800 | 0x8000)
    told = []
    for flags in wanted:
        pid = LIBC.syscall(ctypes.c_long(56), ctypes.c_long(flags), None, None, None, None)
        if pid == 0:
            os._exit(0)
        told.append("ok" if pid > 0 else errno.errorcode[ctypes.get_errno()])
    return told + [call(435, struct.pack("11Q", flags, *[0] * 3, 17, *[0] * 6), 88) for flags in (0, 1 << 33, 1 << 32, 0x8000)]
"""),
)  # fmt: skip
