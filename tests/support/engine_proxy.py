"""A socket between the daemon and its Docker Engine: it counts the calls, and answers in the Engine's place if told so.

with EngineProxy(path, engine="/var/run/docker.sock") as proxy:
    proxy.answer = refusing(500, "no space left on device", only="create")
    ...
    proxy.answer = None
"""

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

import pytest

_PIECE = 1 << 16


class Call(NamedTuple):
    at: float  #: monotonic seconds
    method: str
    what: str  #: the path without version and query: "/containers/create"


#: Gets a call and the client's connection. Returns True if it has dealt with the call, and False to pass it on.
Answer = Callable[[Call, socket.socket], bool]


def refusing(status: int, message: str, *, only: str = "") -> Answer:
    """Answers with an error, as the Engine words it; `only`: calls whose path has this in it."""
    body = json.dumps({"message": message}).encode()
    head = f"HTTP/1.1 {status} Error\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"

    def answer(call: Call, connection: socket.socket) -> bool:
        if only not in call.what:
            return False
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)
        return True

    return answer


def gone(_call: Call, _connection: socket.socket) -> bool:
    """Closes the connection without an answer, as an Engine that has just ended."""
    return True


def engine_socket() -> str:
    """The path of the Engine's own socket. Skips the test if the Engine is not on a socket of this host."""
    engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not engine.startswith("unix://"):
        pytest.skip("needs an Engine on a socket of this host")
    return engine.removeprefix("unix://")


class EngineProxy:
    def __init__(self, path: Path, *, engine: str) -> None:
        self.path = path
        self.host = f"unix://{path}"
        self.calls: list[Call] = []
        self.answer: Answer | None = None
        self._engine = engine
        self._closing = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen(128)
        self._listener.settimeout(0.2)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self._listener.close()
        self.path.unlink()

    def count(self, what: str) -> int:
        """Calls whose path has this in it."""
        return sum(what in call.what for call in self.calls)

    def hang(self, call: Call, connection: socket.socket) -> bool:
        """Answers nothing until it is told otherwise or the client gives up, and then passes the call on."""
        del call
        while self.answer == self.hang and not self._closing.is_set():
            time.sleep(0.02)
            with contextlib.suppress(BlockingIOError):
                if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    return True
        return False

    def _accept(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """One call on each connection, so that only its first line has to be understood."""
        with connection, contextlib.suppress(OSError):
            head, body = _read_request(connection)
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            call = Call(time.monotonic(), method, re.sub(r"^/v[\d.]+", "", target.partition("?")[0]))
            self.calls.append(call)
            if self.answer is not None and self.answer(call, connection):
                return
            with socket.socket(socket.AF_UNIX) as engine:
                engine.connect(self._engine)
                engine.sendall(
                    re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head) + b"\r\nConnection: close\r\n\r\n" + body
                )
                while piece := engine.recv(_PIECE):
                    connection.sendall(piece)


def _read_request(connection: socket.socket) -> tuple[bytes, bytes]:
    """The head without its last empty line, and the body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while len(body) < (int(length[1]) if length else 0):
        body += _receive(connection)
    return head, body


def _receive(connection: socket.socket) -> bytes:
    piece = connection.recv(_PIECE)
    if not piece:
        raise ConnectionResetError
    return piece
