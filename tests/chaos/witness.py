"""Counts the executions of jobs from outside: the kernel tells of each process that changes its name.

A job names its process after its nonce (`programs.py`). The proc connector of Linux sends PROC_EVENT_COMM for it to whoever
listens as root, so neither the daemon nor the worker has a part in the count. See include/uapi/linux/cn_proc.h.
"""

import contextlib
import os
import socket
import struct
import threading
from collections import Counter
from typing import Self

from tests.chaos.programs import NONCE_LENGTH, mark_of

_NETLINK_CONNECTOR, _CN_IDX_PROC, _CN_VAL_PROC = 11, 1, 1
_LISTEN, _IGNORE = 1, 2
_PROC_EVENT_COMM = 0x200
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 64 << 20
_NLMSG, _CN_MSG = struct.Struct("=IHHII"), struct.Struct("=IIIIHH")
_EVENT = struct.Struct("=IIQ")  # what, cpu, timestamp
_BODY_AT = _NLMSG.size + _CN_MSG.size
_COMM_AT = _BODY_AT + _EVENT.size + 8  # after pid and tgid


class Witness:
    """`with Witness(campaign) as witness:` then `witness.seen[nonce]`. `complete` is False if the kernel dropped events."""

    def __init__(self, campaign: str) -> None:
        self._mark = mark_of(campaign).encode()
        self.seen: Counter[str] = Counter()
        self.complete = True
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_CONNECTOR)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.settimeout(0.2)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)

    def __enter__(self) -> Self:
        self._socket.bind((0, _CN_IDX_PROC))
        self._say(_LISTEN)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._say(_IGNORE)
        self._socket.close()

    def _say(self, word: int) -> None:
        body = _CN_MSG.pack(_CN_IDX_PROC, _CN_VAL_PROC, 0, 0, 4, 0) + struct.pack("=I", word)
        self._socket.send(_NLMSG.pack(_NLMSG.size + len(body), 3, 0, 0, os.getpid()) + body)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                event = self._socket.recv(4096)
            except TimeoutError:
                continue
            except OSError:  # ENOBUFS: the buffer was full
                self.complete = False
                continue
            if len(event) >= _COMM_AT + 16 and _EVENT.unpack_from(event, _BODY_AT)[0] == _PROC_EVENT_COMM:
                name = event[_COMM_AT : _COMM_AT + 16].split(b"\0")[0]
                if len(name) == NONCE_LENGTH and name.startswith(self._mark):
                    self.seen[name.decode("ascii", "replace")] += 1
