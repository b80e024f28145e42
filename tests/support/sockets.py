"""Reading from sockets in tests."""


def receive_exactly(sock, size):
    """Receive exactly `size` bytes; ConnectionResetError if the peer closes the connection before.

    `sock.recv(size, MSG_WAITALL)` does not do this on a socket with a timeout: Python makes such a socket non-blocking, and
    the call returns what has arrived so far.
    """
    received = b""
    while len(received) < size:
        more = sock.recv(size - len(received))
        if not more:
            raise ConnectionResetError(f"the peer closed the connection after {len(received)} of {size} bytes")
        received += more
    return received
