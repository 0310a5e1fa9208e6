"""Which LLMDeployments need a look: many events become one, one look per object at a time."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FIRST_BACKOFF_S: Final = 0.2
LONGEST_BACKOFF_S: Final = 30.0


@dataclass(frozen=True, order=True)
class Key:
    """One namespaced object."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class WorkQueue:
    """A de-duplicating queue of keys with back-off.

    A key that is added while its work is under way comes again when that is done, so nothing that
    happens during a look goes unseen. `chance` in [0, 1) spreads retries.
    """

    def __init__(self, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._waiting: OrderedDict[Key, float] = OrderedDict()  # key -> when it was added
        self._in_work: dict[Key, float] = {}  # key -> when its work began
        self._again: dict[Key, float] = {}  # added during its own work
        self._failures: dict[Key, int] = {}
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self._something = asyncio.Event()

    def add(self, key: Key) -> None:
        """Ask for a look as soon as may be; a key in back-off is looked at now."""
        timer = self._later.pop(key, None)
        if timer:
            timer.cancel()
        if key in self._in_work:
            self._again.setdefault(key, self._clock())
        else:
            self._waiting.setdefault(key, self._clock())
            self._something.set()

    def remind(self, key: Key) -> None:
        """Ask for a look, but leave a key in its back-off: nothing new is known of it."""
        if key not in self._later:
            self.add(key)

    def add_after(self, key: Key, delay_s: float) -> None:
        """Ask for a look after a delay; the earliest of several wins."""
        loop = asyncio.get_running_loop()
        timer = self._later.get(key)
        if timer and timer.when() <= loop.time() + delay_s:
            return
        if timer:
            timer.cancel()
        self._later[key] = loop.call_later(delay_s, self.add, key)

    async def take(self) -> Key:
        """Return the next key; its work is under way until `done` or `failed`."""
        while not self._waiting:
            self._something.clear()
            await self._something.wait()
        key, _ = self._waiting.popitem(last=False)
        self._in_work[key] = self._clock()
        return key

    def done(self, key: Key) -> None:
        """Tell that the look went well: its back-off is forgotten."""
        self._failures.pop(key, None)
        self._end(key)

    def failed(self, key: Key, at_least_s: float = 0.0) -> float:
        """Tell that the look failed, and return the pause before the next one."""
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        longest_s: float = min(FIRST_BACKOFF_S * 2 ** min(failures - 1, 20), LONGEST_BACKOFF_S)
        pause_s = max(at_least_s, longest_s * (0.5 + 0.5 * self._chance()))
        # What happened meanwhile waits too: a look that fails must not spin with its own events.
        self._again.pop(key, None)
        self._end(key)
        self.add_after(key, pause_s)
        return pause_s

    def forget(self, key: Key) -> None:
        """Drop all memory of an object that is gone."""
        self._failures.pop(key, None)
        timer = self._later.pop(key, None)
        if timer:
            timer.cancel()

    def oldest_wait_s(self) -> float:
        """Return how long the key that is longest due has waited or been in work; 0 when idle."""
        now_s = self._clock()
        since = [*self._waiting.values(), *self._in_work.values()]
        return now_s - min(since) if since else 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def _end(self, key: Key) -> None:
        self._in_work.pop(key, None)
        since_s = self._again.pop(key, None)
        if since_s is not None:
            self._waiting.setdefault(key, since_s)
            self._something.set()
