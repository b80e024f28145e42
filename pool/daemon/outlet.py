"""What running jobs print, on its way to who reads it. Bounded: a reader has at most a few pieces under way.

A client that does not take what it was sent is sent nothing more until it does; it stays behind on the tape, and gets
the rest with the result. So a slow reader costs a fixed amount, and nobody else waits for it.
"""

from __future__ import annotations

from pool import wire
from pool.daemon.tape import Tape
from pool.daemon.zmtp import ClientListener

#: A client that has so much untaken is not sent more.
_UNTAKEN_BYTES = 4 * wire.MAX_PRINTED_BYTES
#: Sent to one reader before the others, and the rest of the loop, get their turn.
_PIECES_PER_TURN = 16


class Outlet:
    """Sends tapes to their readers. Used from the loop's thread only."""

    def __init__(self, door: ClientListener) -> None:
        self._door = door
        self._behind: set[Tape] = set()
        self.eager = False  #: whether somebody is behind who would take more at once

    def join(self, tape: Tape, address: bytes) -> None:
        """Send this client the tape, from its beginning, and what comes on it."""
        tape.join(address)
        self.show(tape)

    def show(self, tape: Tape) -> None:
        """There may be something that its readers have not got."""
        self._behind.discard(tape)
        for reader in tape.readers:
            if not self._bring(tape, reader):
                self._behind.add(tape)

    def catch_up(self) -> None:
        """Once in each turn of the loop: those who are behind may have room again."""
        self.eager = False
        for tape in list(self._behind):
            self.show(tape)

    def _bring(self, tape: Tape, reader: bytes) -> bool:
        """Whether this reader has everything, or has gone."""
        for _ in range(_PIECES_PER_TURN):
            untaken = self._door.queued_bytes(reader)
            if untaken is None:
                tape.leave(reader)
                return True
            if untaken > _UNTAKEN_BYTES:
                return False
            if (piece := tape.next(reader)) is None:
                return True
            self._door.send(reader, piece[0], [piece[1]])
        self.eager = True
        return False
