"""The runner's own calls of libzmq, against pyzmq at the other end."""

import threading

import pytest
import zmq
from runner import libzmq

from tests.support.waiting import eventually


@pytest.fixture
def context():
    context = libzmq.Context()
    yield context
    context.end(0)


@pytest.fixture
def peer():
    with zmq.Context() as context, context.socket(zmq.PAIR) as peer:
        peer.linger = 0
        yield peer


@pytest.fixture
def pair(context, peer, tmp_path):
    peer.bind(f"ipc://{tmp_path}/link.sock")
    socket = context.socket()
    socket.connect(f"ipc://{tmp_path}/link.sock")
    return socket


def received(socket):
    assert libzmq.poll({socket: libzmq.POLLIN}, 60_000) == [socket]
    return socket.take()


def test_the_numbers_are_those_of_pyzmq():
    own = (libzmq.POLLIN, libzmq.POLLOUT, libzmq.CONNECTED, libzmq.CLOSED, libzmq.DISCONNECTED, libzmq.AT_ONCE)
    assert own == (
        zmq.POLLIN, zmq.POLLOUT, zmq.EVENT_CONNECTED, zmq.EVENT_CLOSED, zmq.EVENT_DISCONNECTED, zmq.NOBLOCK,
    )  # fmt: skip
    options = (libzmq._FD, libzmq._EVENTS, libzmq._LINGER, libzmq._RECONNECT_IVL)
    assert options == (zmq.FD, zmq.EVENTS, zmq.LINGER, zmq.RECONNECT_IVL)
    assert (libzmq.MORE, libzmq._PAIR) == (zmq.SNDMORE, zmq.PAIR)


@pytest.mark.parametrize("size", [0, 1, libzmq.COPIED_BYTES - 1, libzmq.COPIED_BYTES, 1 << 22])
def test_frames_of_every_kind_and_size_arrive_in_both_directions(pair, peer, size):
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]
    frames = [content, bytearray(content), memoryview(content), memoryview(bytearray(content)), b"last"]
    pair.send(frames)
    assert peer.poll(60_000)
    assert peer.recv_multipart() == [content] * 4 + [b"last"]
    peer.send_multipart(frames)
    assert received(pair) == [content] * 4 + [b"last"]


def test_a_large_frame_is_held_until_it_is_sent_and_no_longer(pair, peer):
    frame = bytearray(1 << 22)
    pair.send([frame])
    assert peer.poll(60_000)
    peer.recv()
    eventually(lambda: not libzmq._held)
    frame.clear()  # refused while libzmq has it


def test_a_message_to_nobody_is_refused_and_its_frames_are_let_go(context):
    socket = context.socket()
    frame = bytearray(1 << 22)
    with pytest.raises(BlockingIOError):
        socket.send([frame])
    frame.clear()
    assert socket.take() is None


def test_what_happens_to_a_connection_is_reported_once(context, tmp_path):
    place = f"ipc://{tmp_path}/link.sock"
    socket = context.socket()
    monitor = socket.monitor(libzmq.CONNECTED | libzmq.DISCONNECTED | libzmq.CLOSED)
    with zmq.Context() as other:
        peer = other.socket(zmq.PAIR)
        peer.bind(place)
        socket.connect(place)
        assert int.from_bytes(received(monitor)[0][:2], "little") == libzmq.CONNECTED
        peer.close(linger=0)
    assert int.from_bytes(received(monitor)[0][:2], "little") == libzmq.DISCONNECTED
    assert libzmq.poll({monitor: libzmq.POLLIN}, 0) == []


def test_the_end_waits_for_what_is_not_sent_yet_as_long_as_it_may(peer, tmp_path):
    context, place = libzmq.Context(), f"ipc://{tmp_path}/link.sock"
    socket = context.socket()
    peer.bind(place)
    socket.connect(place)
    assert libzmq.poll({socket: libzmq.POLLOUT}, 60_000) == [socket]
    socket.send([b"a", bytes(1 << 20)])
    ending = threading.Thread(target=context.end, args=(60_000,))
    ending.start()
    assert [len(each) for each in peer.recv_multipart()] == [1, 1 << 20]
    ending.join(60)
    assert not ending.is_alive()
