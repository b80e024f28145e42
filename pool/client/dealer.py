"""The ZeroMQ socket of a client, and a second one that tells what happens to its connection.

    Dealer.socket     DEALER; another one after `reopen`
    Dealer.events()   what its monitor has told: the connection was lost, or cannot be made

Both descriptors are for an epoll: that of the socket is readable only after a change, that of the monitor as a file's.
"""

from __future__ import annotations

import select
import threading

import zmq
from zmq.utils.monitor import recv_monitor_message

from pool import wire

#: Messages that wait in ZeroMQ in each direction; more wait in this process.
HIGH_WATER_MARK = 1000
#: First and longest pause between attempts to connect: a new daemon is found soon, an absent one costs little.
RECONNECT_MS = (20, 500)
_POLLIN = int(zmq.POLLIN)


class Dealer:
    """Not connected at first. Used by the thread that holds `using`. Its descriptors are in `epoll` until it closes."""

    descriptors: tuple[int, ...] = ()  #: of the socket and its monitor

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, epoll: select.epoll) -> None:
        self._context = context
        self._endpoint = endpoint
        self._epoll = epoll
        self.using = threading.Lock()
        self.is_left = False  #: whether another one is used instead, because a caller uses this one for long
        self.reopen()

    def reopen(self) -> None:
        """Replace the socket. Messages that wait in it are lost."""
        if self.descriptors:
            self.close()
        self.connected = False
        self.is_torn = False  #: whether a message was begun, and perhaps not sent to its end
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        self.socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        self.socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_FRAME_BYTES)
        self.socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS[0])
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS[1])
        self._monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED)
        self.descriptors = (self.socket.FD, self._monitor.FD)
        for each in self.descriptors:
            self._epoll.register(each, select.EPOLLIN)

    def connect(self) -> None:
        """Not before there is something to send: an idle client does not look for an absent daemon."""
        self.socket.connect(self._endpoint)
        self.connected = True

    def events(self) -> set[int]:
        """EVENT_DISCONNECTED and EVENT_CONNECT_RETRIED, if they have come since the last call."""
        events: set[int] = set()
        while int(self._monitor.get(zmq.EVENTS)) & _POLLIN:
            events.add(recv_monitor_message(self._monitor)["event"])
        return events

    def leave(self) -> None:
        """A caller uses it for long: it is closed later."""
        self.is_left = True
        for each in self.descriptors:
            self._epoll.unregister(each)
        self.descriptors = ()

    def close(self) -> None:
        for each in self.descriptors:
            self._epoll.unregister(each)
        self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close(0)
