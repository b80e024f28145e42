"""libzmq by its C functions, zmq_socket(3) and its neighbours: pairs of sockets and their monitors, and no more.

It is the library that pyzmq brings along. pyzmq itself is not imported, because that takes a tenth of a worker's start.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import itertools
import os
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES

from runner.channel import Frame

POLLIN, POLLOUT = 1, 2
CONNECTED, CLOSED, DISCONNECTED = 0x0001, 0x0080, 0x0200
#: Flags of a message that is sent.
AT_ONCE, MORE = 1, 2
_PAIR = 0
_MORE_FOLLOW, _FD, _EVENTS, _LINGER, _RECONNECT_IVL = 13, 14, 15, 17, 18
#: Larger frames are not copied when they are sent.
COPIED_BYTES = 128 * 1024
_MESSAGE_BYTES = 64  #: of a zmq_msg_t


def _library() -> ctypes.CDLL:
    """By pyzmq's extension module, which is linked to it. None of its code is executed."""
    found = importlib.util.find_spec("zmq")
    for place, suffix in itertools.product(found.submodule_search_locations or () if found else (), EXTENSION_SUFFIXES):
        if os.path.exists(path := f"{place}/backend/cython/_zmq{suffix}"):  # noqa: PTH110
            return ctypes.CDLL(path, use_errno=True)
    raise ImportError("pyzmq is not there, or has no compiled module", name="zmq")


class _PollItem(ctypes.Structure):
    """zmq_pollitem_t."""

    _fields_ = (
        ("socket", ctypes.c_void_p),
        ("fd", ctypes.c_int),
        ("events", ctypes.c_short),
        ("found", ctypes.c_short),
    )


_zmq = _library()
_Release = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
_pointer, _int, _text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
for _name, _result, *_arguments in (
    ("ctx_new", _pointer),
    ("ctx_term", _int, _pointer),
    ("socket", _pointer, _pointer, _int),
    ("close", _int, _pointer),
    ("connect", _int, _pointer, _text),
    ("setsockopt", _int, _pointer, _int, _pointer, ctypes.c_size_t),
    ("getsockopt", _int, _pointer, _int, _pointer, _pointer),
    ("socket_monitor", _int, _pointer, _text, _int),
    ("send", _int, _pointer, _text, ctypes.c_size_t, _int),
    ("poll", _int, _pointer, _int, ctypes.c_long),
    ("msg_init", _int, _pointer),
    ("msg_init_data", _int, _pointer, _pointer, ctypes.c_size_t, _Release, _pointer),
    ("msg_send", _int, _pointer, _pointer, _int),
    ("msg_recv", _int, _pointer, _pointer, _int),
    ("msg_data", _pointer, _pointer),
    ("msg_size", ctypes.c_size_t, _pointer),
    ("msg_more", _int, _pointer),
    ("msg_close", _int, _pointer),
    ("strerror", _text, _int),
):
    _function = getattr(_zmq, f"zmq_{_name}")
    _function.restype, _function.argtypes = _result, _arguments

#: Frames that libzmq has not sent yet, by number.
_held: dict[int, object] = {}
_numbers = itertools.count(1)


def _drop(_data: int | None, number: int) -> None:
    """Called by a thread of libzmq."""
    _held.pop(number, None)


_release = _Release(_drop)


class Context:
    """Starts two threads of libzmq with its first socket."""

    def __init__(self) -> None:
        self._context = _zmq.zmq_ctx_new()
        self._sockets: set[Socket] = set()

    def socket(self) -> Socket:
        opened = Socket(self, _not_null(_zmq.zmq_socket(self._context, _PAIR)))
        self._sockets.add(opened)
        return opened

    def forget(self, socket: Socket) -> None:
        """One that is closed."""
        self._sockets.discard(socket)

    def end(self, linger_ms: int) -> None:
        """Close all sockets and wait, for so long at most, until what they still have is sent."""
        for each in tuple(self._sockets):
            each.close(linger_ms)
        _zmq.zmq_ctx_term(self._context)


class Socket:
    """A pair. It does not connect again by itself. For one thread at a time."""

    def __init__(self, context: Context, handle: int) -> None:
        self._context = context
        self.handle = handle
        self._number = ctypes.c_int()
        self._size = ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
        self._message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        self._set(_RECONNECT_IVL, -1)
        _check(_zmq.zmq_getsockopt(handle, _FD, ctypes.byref(self._number), ctypes.byref(self._size)))
        self.fd = self._number.value  #: is readable when there may be something to do

    def connect(self, endpoint: str) -> None:
        _check(_zmq.zmq_connect(self.handle, endpoint.encode()))

    def monitor(self, events: int) -> Socket:
        """Another socket, to which these events of this one are reported; by zmq_socket_monitor(3)."""
        place = f"inproc://monitor-{self.fd}"
        _check(_zmq.zmq_socket_monitor(self.handle, place.encode(), events))
        other = self._context.socket()
        other.connect(place)
        return other

    def stop_monitor(self) -> None:
        _check(_zmq.zmq_socket_monitor(self.handle, None, 0))

    def close(self, linger_ms: int = 0) -> None:
        """What is not sent yet is sent within this time, or lost."""
        self._set(_LINGER, linger_ms)
        _check(_zmq.zmq_close(self.handle))
        self._context.forget(self)

    def settle(self) -> None:
        """Has libzmq end what belongs to a connection that has ended."""
        _check(_zmq.zmq_getsockopt(self.handle, _EVENTS, ctypes.byref(self._number), ctypes.byref(self._size)))

    def send(self, frames: Sequence[Frame]) -> None:
        """A message, at once. Raises BlockingIOError if the other end takes nothing now: then nothing was sent."""
        last = len(frames) - 1
        for number, frame in enumerate(frames):
            flags, size = AT_ONCE if number == last else AT_ONCE | MORE, len(frame)
            if size >= COPIED_BYTES:
                self._lend(frame, flags)
                continue
            while _zmq.zmq_send(self.handle, frame if type(frame) is bytes else bytes(frame), size, flags) < 0:
                _require_interrupted()

    def take(self) -> list[bytes] | None:
        """A message; None if there is none. Has libzmq take in what has come."""
        frames, message, more = [], self._message, True
        while more:
            _zmq.zmq_msg_init(message)
            while _zmq.zmq_msg_recv(message, self.handle, AT_ONCE) < 0:
                if ctypes.get_errno() == errno.EAGAIN:
                    return None
                _require_interrupted()
            frames.append(ctypes.string_at(_zmq.zmq_msg_data(message), _zmq.zmq_msg_size(message)))
            more = _zmq.zmq_msg_more(message)
            _zmq.zmq_msg_close(message)
        return frames

    def _lend(self, frame: Frame, flags: int) -> None:
        """Send it without a copy: libzmq has it until it is sent."""
        number = next(_numbers)
        address, _held[number] = _place(frame)
        _zmq.zmq_msg_init_data(self._message, address, len(frame), _release, number)
        while _zmq.zmq_msg_send(self._message, self.handle, flags) < 0:
            try:
                _require_interrupted()
            except OSError:
                _zmq.zmq_msg_close(self._message)
                raise

    def _set(self, option: int, value: int) -> None:
        number = ctypes.c_int(value)
        _check(_zmq.zmq_setsockopt(self.handle, option, ctypes.byref(number), ctypes.sizeof(number)))


def poll(wanted: dict[Socket, int], timeout_ms: int = -1) -> list[Socket]:
    """Wait until one of the sockets has one of its events."""
    items = (_PollItem * len(wanted))(*[_PollItem(each.handle, 0, events, 0) for each, events in wanted.items()])
    while _zmq.zmq_poll(items, len(items), timeout_ms) < 0:
        _require_interrupted()
    return [each for each, item in zip(wanted, items, strict=True) if item.found]


def _place(frame: Frame) -> tuple[int | None, object]:
    """The address of its bytes, and what keeps them there. ctypes.cast would keep them until a garbage collection."""
    if isinstance(frame, bytes) or memoryview(frame).readonly:
        kept = bytes(frame)
        return ctypes.c_void_p.from_buffer(ctypes.c_char_p(kept)).value, kept
    room = (ctypes.c_char * len(frame)).from_buffer(frame)
    return ctypes.addressof(room), room


def _require_interrupted() -> None:
    """After a call that has failed: it may be made again if a signal has interrupted it. Otherwise raises OSError."""
    if ctypes.get_errno() != errno.EINTR:
        _check(-1)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, _zmq.zmq_strerror(number).decode())
    return result


def _not_null(handle: int | None) -> int:
    if handle is None:
        _check(-1)
    return handle or 0
