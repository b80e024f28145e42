"""A client on a libzmq of any version, without pyzmq: `libzmq_peer.py ENDPOINT HEARTBEAT_MS IDLE_S LIBRARY...`.

It sends messages, is idle for a while, sends some more, and prints its version and the frames of all answers.
"""

import ctypes
import json
import sys
import time

DEALER, LINGER, RCVMORE, HEARTBEAT_IVL, HEARTBEAT_TTL, HEARTBEAT_TIMEOUT, SNDMORE = 5, 17, 13, 75, 76, 77, 2
MESSAGES = [[b"a"], [b"", b"b" * 300, b""], [b"c" * 1_000_000, b"d" * 20_000], [b"e"] * 50]
BUFFER_BYTES = 2_000_000


class Libzmq:
    """What the peer needs of the library."""

    def __init__(self, *libraries):
        for each in libraries:
            self._lib = ctypes.CDLL(each, ctypes.RTLD_GLOBAL)
        for name in ("zmq_ctx_new", "zmq_socket"):
            getattr(self._lib, name).restype = ctypes.c_void_p
        self._socket = ctypes.c_void_p(self._lib.zmq_socket(ctypes.c_void_p(self._lib.zmq_ctx_new()), DEALER))
        self._buffer = ctypes.create_string_buffer(BUFFER_BYTES)

    def version(self):
        parts = [ctypes.c_int() for _ in range(3)]
        self._lib.zmq_version(*map(ctypes.byref, parts))
        return ".".join(str(part.value) for part in parts)

    def set(self, option, number):
        self._check(self._lib.zmq_setsockopt(self._socket, option, ctypes.byref(ctypes.c_int(number)), 4))

    def connect(self, endpoint):
        self._check(self._lib.zmq_connect(self._socket, endpoint.encode()))

    def send(self, frames):
        for left, frame in zip(range(len(frames) - 1, -1, -1), frames, strict=True):
            self._check(self._lib.zmq_send(self._socket, frame, ctypes.c_size_t(len(frame)), SNDMORE if left else 0))

    def receive(self):
        frames, more = [], ctypes.c_int(1)
        while more.value:
            size = self._lib.zmq_recv(self._socket, self._buffer, ctypes.c_size_t(BUFFER_BYTES), 0)
            self._check(size)
            frames.append(self._buffer.raw[:size])
            length = ctypes.c_size_t(4)
            self._check(self._lib.zmq_getsockopt(self._socket, RCVMORE, ctypes.byref(more), ctypes.byref(length)))
        return frames

    @staticmethod
    def _check(result):
        assert result >= 0, result


def main(endpoint, heartbeat_ms, idle_s, *libraries):
    peer, sizes = Libzmq(*libraries), []
    if int(heartbeat_ms):
        peer.set(HEARTBEAT_IVL, int(heartbeat_ms))
        peer.set(HEARTBEAT_TTL, 100 * int(heartbeat_ms))
        peer.set(HEARTBEAT_TIMEOUT, 100 * int(heartbeat_ms))
    peer.connect(endpoint)
    for pause_s in (0.0, float(idle_s)):
        time.sleep(pause_s)
        for message in MESSAGES:
            peer.send([b"1", b"2", *message])
            sizes.append([len(frame) for frame in peer.receive()[2:]])
    print(json.dumps({"version": peer.version(), "sizes": sizes}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
