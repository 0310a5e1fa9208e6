"""A ceiling on requests per second: a bucket of tokens on the monotonic clock."""

import asyncio
import time
from collections.abc import Callable


class Pace:
    """Let through `per_s` callers a second, and at most one second's worth at once."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._free_at_s = clock()

    async def wait_turn(self) -> None:
        """Return when this caller may go, in the order of calling."""
        delay_s = self.delay_s()
        if delay_s > 0:
            await asyncio.sleep(delay_s)

    def delay_s(self) -> float:
        """Take the next turn and return how long it is off."""
        now_s = self._clock()
        # A turn lies 1/per_s after the one before it; a pause saves up at most a second of turns.
        self._free_at_s = max(self._free_at_s, now_s - 1.0) + 1.0 / self._per_s
        return max(0.0, self._free_at_s - now_s)
