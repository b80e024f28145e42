"""Attempts of code that the screen has let pass. They are appended to any payload, as text: see `behind`.

It leaves in `result` what it came to see: processes, descriptors, places it could write to, sockets, programs, and the
marks that somebody else's job has left, in files, in the environment, and in every page of memory that can be read.
"""

import secrets

#: Where a job has nothing to write.
FORBIDDEN = (
    "/", "/etc", "/opt/pool", "/run", "/usr/lib", "/proc", "/sys", "/dev", "/datasets", "/var", "/home", "/root",
)  # fmt: skip
#: Where somebody else's job could have left something.
READ = ("/tmp", "/dev/shm", "/run", "/proc", "/sys", "/var", "/home", "/root", "/etc", "/datasets", "/opt/pool")

_AFTERMATH = r'''
def aftermath(forbidden, readable, deep):
    import builtins, ctypes, errno, gc, os, re, socket, sys
    mark = re.compile(rb"@{3}[0-9a-f]{32}@{3}")  # never matches itself

    def tried(attempt, *arguments):
        try:
            got = attempt(*arguments)
            return got if got is not None else True
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error))

    def writable():
        for place in forbidden:
            path = os.path.join(place, "hole")
            fd = tried(os.open, path, os.O_CREAT | os.O_WRONLY, 0o600)
            if isinstance(fd, int):
                os.close(fd)
                os.unlink(path)
                yield place

    def alive():
        for pid in range(1, 1024):
            if pid != os.getpid() and tried(os.kill, pid, 0) in (True, "EPERM"):
                yield pid

    def marks_in_files():
        for top in readable:
            for place, _, names in os.walk(top):
                for name in names:
                    try:
                        fd = os.open(os.path.join(place, name), os.O_RDONLY | os.O_NONBLOCK)
                    except OSError:
                        continue
                    with open(fd, "rb") as file:
                        try:
                            if mark.search(file.read(1 << 20) or b""):  # a pipe of its own that is empty gives None
                                yield os.path.join(place, name)
                        except OSError:
                            pass

    def marks_in_memory():
        """Through a pipe, so that what is not there is an error and no end. From every object that can be reached,
        up and down, over gaps of two megabytes."""
        reading, writing = os.pipe()
        step, page, most = 65536, 4096, 512 << 20
        gc.unfreeze()
        anchors = [id(each) for each in gc.get_objects()] + [id(os.environ), id(b""), id(sys)]
        anchors.append(ctypes.addressof(ctypes.c_char.from_buffer(bytearray(1 << 20))))
        todo, seen, found, scanned = {at // step for at in anchors}, set(), set(), 0
        while todo and scanned < most:
            chunk = todo.pop()
            if chunk in seen or not 0 < chunk < 1 << 31:
                continue
            seen.add(chunk)
            there, tail = 0, b""
            for at in range(chunk * step, (chunk + 1) * step, page):
                try:
                    size = os.write(writing, (ctypes.c_char * page).from_address(at))
                except OSError:
                    continue
                tail += os.read(reading, size)
                there += size
            found.update(mark.findall(tail))
            scanned += there
            if there:
                todo.update(range(chunk - 32, chunk + 33))
        os.close(reading)
        os.close(writing)
        return sorted(found), scanned

    def reached(family, address):
        with socket.socket(family) as sock:
            return sock.connect_ex(address)

    def program():
        pid = os.posix_spawn(sys.executable or "/usr/bin/python3", ["python", "-c", ""], {})
        return os.waitpid(pid, 0)[1]

    def open_ones():
        return [fd for fd in range(256) if tried(os.fstat, fd) != "EBADF"]

    open_at_first = open_ones()
    marks, scanned = marks_in_memory() if deep else ([], 0)
    marks += mark.findall(repr([dict(os.environ), vars(builtins).get("mark"), sys.modules.get("mark")]).encode())
    return {
        "processes": list(alive()),
        "parent": os.getppid(),
        "descriptors": open_at_first,
        "writable": list(writable()),
        "network": tried(reached, socket.AF_INET, ("127.0.0.1", 9)),
        "socket": tried(reached, socket.AF_UNIX, b"\0nobody"),
        "program": tried(program),
        "marks": [each.decode() for each in marks] + list(marks_in_files()),
        "scanned": scanned,
        "environment": sorted(os.environ),
    }

result = {"gained": repr(globals().get("result"))[:80], "worked": bool(globals().get("result"))} | aftermath(%r, %r, %r)
'''


def behind(
    code: str, *, forbidden: tuple[str, ...] = FORBIDDEN, readable: tuple[str, ...] = READ, deep: bool = False
) -> str:
    """The code, and then everything that can be tried. `deep`: read all memory, which takes a second."""
    return code + _AFTERMATH.replace("%r, %r, %r", f"{forbidden!r}, {readable!r}, {deep!r}")


def new_mark() -> str:
    return f"@@@{secrets.token_hex(16)}@@@"


#: A job of somebody else: it leaves its mark wherever it can.
LEAVE = """
import builtins, os, sys
def main(mark):
    os.environ["MARK"] = mark
    builtins.mark = mark
    sys.modules["mark"] = [mark] * 100
    for place in ("/tmp", "/dev/shm", "."):
        with open(os.path.join(place, "mark"), "w") as file:
            file.write(mark * 100)
    print(mark)
    return mark
"""
