"""A transport served by a thread of its own, and peers for it: sockets of libzmq, and plain sockets."""

import contextlib
import socket
import threading
from types import SimpleNamespace

import zmq

from pool import wire
from pool.daemon.zmtp import Handlers, Transport, codec, commands
from pool.daemon.zmtp.codec import Decoder
from pool.daemon.zmtp.connection import TIMEOUTS
from tests.support.sockets import receive_exactly

#: What a DEALER says first.
GREETED = commands.GREETING + commands.ready("DEALER")
WAIT_S = 60


class Host:
    """Answers every message of a client with Accepted and the client's payload, or with `payload` if that is set."""

    def __init__(self, root, timeouts=TIMEOUTS):
        (root / "w").mkdir(exist_ok=True)
        self.transport = Transport(
            submit=root / "s", admin=root / "a", links=root / "w", submit_mode=0o660, submit_group=None,
            timeouts=timeouts,
        )  # fmt: skip
        self.root = root
        self.from_clients, self.from_workers, self.losses = [], [], []
        self.payload = ()
        self.handlers = Handlers(
            on_submit=lambda *message: self._echo(self.transport.submit, *message),
            on_admin=lambda *message: self._echo(self.transport.admin, *message),
        )
        self._failure = None
        self._end = False
        self._sockets = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.call(lambda: setattr(self, "_end", True))
        self._thread.join(WAIT_S)
        for each in self._sockets:
            each.close()
        if self._failure:
            raise self._failure

    def call(self, function):
        """Run it on the thread of the loop, and return what it returns."""
        done, box = threading.Event(), []
        self.transport.call_soon(lambda: (box.append(function()), done.set()))
        assert done.wait(WAIT_S), self._failure
        return box[0]

    def _run(self):
        try:
            while not self._end:
                self.transport.run_once(0.05, self.handlers)
            self.transport.close()
        except BaseException as error:
            self._failure = error
            raise

    def step(self):
        """Let the loop serve what was sent. Its thread does that anyway."""

    def receive(self, *message):
        self.from_workers.append(message)

    def lost(self, worker_id, reason):
        self.losses.append((worker_id, reason))
        self.transport.links.close(worker_id)

    def _echo(self, listener, address, user, frames):
        self.from_clients.append((address, user, [len(each) for each in frames]))
        listener.send(address, wire.Accepted(request=len(self.from_clients), job_id="x"), self.payload or frames[2:])

    @property
    def endpoint(self):
        return f"ipc://{self.root}/s"

    @property
    def counts(self):
        return self.transport.submit.counts

    def open_link(self, worker_id="p-1"):
        """The path of a worker's socket."""
        return self.call(lambda: self.transport.links.open(worker_id, self)) / "link.sock"

    def connect(self, path=None):
        """A plain socket that is connected with the submit socket, or with another one."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path or self.root / "s"))
        sock.settimeout(WAIT_S)
        self._sockets.append(sock)
        return sock

    def greet(self, greeting=GREETED):
        """A plain socket after the handshake."""
        sock = self.connect()
        sock.sendall(greeting)
        self.step()
        assert receive_exactly(sock, len(commands.GREETING + commands.ready("ROUTER"))).startswith(commands.GREETING)
        return sock


class SteppedHost(Host):
    """A host without a thread: its loop runs, and its time passes, only when the test says so."""

    def __init__(self, root, monkeypatch):
        super().__init__(root)
        self.now = 1000.0
        for module in ("connection", "transport"):
            monkeypatch.setattr(f"pool.daemon.zmtp.{module}.time", SimpleNamespace(monotonic=lambda: self.now))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in self._sockets:
            each.close()
        self.transport.close()

    def call(self, function):
        return function()

    def step(self):
        for _ in range(5):
            self.transport.run_once(0.0, self.handlers)

    def pass_time(self, seconds):
        """Second by second, with turns of the loop in each."""
        for _ in range(seconds):
            self.now += 1
            self.step()

    def busy(self, seconds, meanwhile=lambda: None):
        """The loop is in one call for so long; then it goes on."""

        def call():
            meanwhile()
            self.now += seconds

        self.transport.call_soon(call)
        self.step()


@contextlib.contextmanager
def dialer():
    """Gives a function that connects a socket of libzmq; they are closed at the end."""
    opened = []

    def dial(endpoint, kind=zmq.DEALER, **options):
        sock = context.socket(kind)
        opened.append(sock)
        for name, value in ({"LINGER": 0} | options).items():
            sock.setsockopt(getattr(zmq, name), value)
        sock.connect(endpoint)
        return sock

    with zmq.Context() as context:
        yield dial
        for each in opened:
            each.close()


def ask(sock, *payload):
    """Send a message and return the answer."""
    sock.send_multipart(wire.encode(wire.Ping(request=1), payload), copy=False)
    assert sock.poll(WAIT_S * 1000), "no answer"
    return wire.decode(wire.to_client, sock.recv_multipart())


def packed(message=None, *payload):
    """The bytes of one message."""
    return b"".join(map(bytes, codec.pack(wire.encode(message or wire.Ping(request=1), payload))))


def is_closed(sock):
    """Read to the end. It raises TimeoutError when the other side does not close."""
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(65536):
            pass
    return True


class Events:
    """What comes from a host to a plain socket, decoded."""

    def __init__(self, host, sock):
        self._host, self._sock = host, sock
        self._decoder = Decoder(limit=1 << 30, max_frames=2000)
        self._decoder.next(commands.GREETING + commands.ready("ROUTER"))  # they were read before
        self._decoder.next()

    def next(self):
        data = b""
        while True:
            if (event := self._decoder.next(data)) is not None:
                return event
            self._host.step()
            data = self._sock.recv(1 << 16)
            assert data, "the other side closed"
