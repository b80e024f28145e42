"""What the tests of classes E and F share: a daemon under attack, and the checks after an attack."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback

import psutil
import zmq

from pool.daemon.zmtp import commands
from pool.errors import UnknownJobError
from tests.support.daemons import DaemonProcess
from tests.support.sockets import receive_exactly

MIB = 1024 * 1024
ALLOWED_GROWTH = 64 * MIB
HONEST = "def main(x):\n    return x * 2"

SMALL = {
    "size": {"min": 1, "max": 2},
    "preload": {"modules": []},
    "limits": {"wall_s": 20, "cpu_s": 20, "memory": "256m", "output": "64k", "result": "1m"},
    "screen": "off",
}


class Besieged(DaemonProcess):
    """A daemon that is watched: memory, descriptors, and whether it serves."""

    def __enter__(self):
        super().__enter__()
        self.home.chmod(0o711)
        self._client = self.client(timeout=120)
        self._eye = psutil.Process(self.process.pid)
        self.honest("default")
        return self

    def __exit__(self, *error):
        self._client.close()
        super().__exit__(*error)

    def run(self, code=HONEST, *args, **options):
        return self._client.run(code, entry="main", args=list(args), **options)

    def submit(self, code=HONEST, *args, **options):
        return self._client.submit(code, entry="main", args=list(args), **options)

    def result(self, job_id):
        return self._client.result(job_id, timeout=120)

    def honest(self, pool):
        result = self.run(HONEST, 21, pool=pool)
        assert (result.outcome, result.value) == ("ok", 42), result

    def rss(self):
        return self._eye.memory_info().rss

    def descriptors(self):
        return self._eye.num_fds()

    @contextlib.contextmanager
    def unharmed(self):
        """After the block the daemon has not grown and serves as before."""
        rss, fds = self.rss(), self.descriptors()
        yield
        self.honest("default")
        self.until(lambda: self.rss() - rss < ALLOWED_GROWTH, timeout=60)
        self.until(lambda: self.descriptors() <= fds + 8)

    # ---- workers ----

    def summon(self, script, *more):
        """Replace the worker of the pool `rogue` by one, or several in turn, that are taken over; the first one's id."""
        taken = set(self.home.glob("taken-*"))
        for number, each in enumerate((script, *more)):
            path = self.home / f"script-{number}"
            path.write_text(each)
            path.rename(self.home / "rogue" / f"{number:03}")
        self.call("recycle", pool="rogue")
        self.until(lambda: set(self.home.glob("taken-*")) - taken)
        first = min(set(self.home.glob("taken-*")) - taken, key=lambda path: int(path.name.rpartition("-")[2]))
        return first.name.removeprefix("taken-")

    def leasable(self, script):
        """A rogue worker that is idle and waits for its job."""
        worker = self.summon(script)
        self.until(lambda: worker in {each["id"] for each in self.workers("rogue", state="idle")})
        self.until(lambda: len(self.workers("rogue")) == 1)
        return worker

    def replaced(self, worker):
        """Wait until a worker is gone and an honest one serves in its place; what the history says of its end."""
        self.until(lambda: worker not in {each["id"] for each in self.workers("rogue")})
        self.until(lambda: self.workers("rogue", state="idle"))
        self.honest("rogue")
        return self.history(worker)

    def history(self, name):
        return "\n".join(entry["what"] for entry in self.call("history", id=name)["entries"])

    # ---- clients ----

    def raw(self, name="submit"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.run_dir / f"{name}.sock"))
        sock.settimeout(60)
        return sock

    def forgotten(self, job_id):
        with contextlib.suppress(UnknownJobError):
            self.result(job_id)
            return False
        return True


def is_closed(sock):
    """Whether the other end hangs up within the socket's timeout."""
    try:
        while sock.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


GREETED = commands.GREETING + commands.ready("DEALER")


_BARE_ROUTER = """
import sys, time, zmq
router = zmq.Context().socket(zmq.ROUTER)
router.set_hwm(10)
router.setsockopt(zmq.MAXMSGSIZE, 1024)
router.bind("ipc://" + sys.argv[1])
print(flush=True)
time.sleep(60)
"""


def growth_of_libzmq(stop=100 * MIB, seconds=60):
    """Endless parts at a bare ROUTER with its caps set, in a process of its own: how much it grows before we stop."""
    with tempfile.TemporaryDirectory(prefix="bare.") as home:
        path = f"{home}/sock"
        command = [sys.executable, "-c", _BARE_ROUTER, path]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as router:
            try:
                router.stdout.readline()
                return _pour(path, psutil.Process(router.pid), stop, time.monotonic() + seconds)
            finally:
                router.kill()


def _pour(path, process, stop, deadline):
    part = (b"\x01\xc8" + bytes(200)) * 5000
    before = process.memory_info().rss
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(path)
        sock.sendall(GREETED)
        # libzmq closes a connection that sends messages before the READY of libzmq has begun.
        receive_exactly(sock, len(commands.GREETING) + 1)
        while process.memory_info().rss - before < stop and time.monotonic() < deadline:
            sock.sendall(part)
    return process.memory_info().rss - before


def ask(daemon, *frames, name="submit"):
    """Any frames, through a socket of libzmq; the frames of the answer, None without one."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(f"ipc://{daemon.run_dir}/{name}.sock")
        dealer.send_multipart(list(frames))
        return dealer.recv_multipart() if dealer.poll(60_000) else None


def as_user(uid, function, *arguments):
    """Call it in a process of another user; its value goes through JSON."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.write(write, json.dumps(function(*arguments)).encode())
        except Exception:  # noqa: BLE001 - told to whoever runs the test
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    assert said, "it failed; what it raised is on stderr"
    return json.loads(said)
