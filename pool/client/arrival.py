"""The answers of the daemon, which come on the I/O thread, for the tasks of an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable

from pool.client.window import Answer, Window


class Arrival:
    """An event of the running loop that any thread may set, repeatedly."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def set(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, wait_s: float | None) -> bool:
        """Whether it was set within `wait_s` seconds since the last `wait`."""
        try:
            async with asyncio.timeout(wait_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


async def ended(
    window: Window[Answer], arrival: Arrival, *, in_order: bool, leave: Callable[[Iterable[Answer]], object]
) -> AsyncGenerator[Answer]:
    """As `Window.run`; the first jobs begin with the first step."""
    try:
        window.fill()
        while window.unfinished():
            while (future := window.ready(in_order=in_order)) is None:
                if (found := window.retry.poll()) is not None:
                    window.end(*found)
                else:
                    await arrival.wait(window.retry.until_next_s())
            await asyncio.sleep(0)  # other tasks run too, however many jobs have ended
            yield future
    finally:
        leave(window.retry.unanswered())
