"""How far a download, or the reading of weights, has come."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

log = logging.getLogger(__name__)

LOGGED_PERCENT: Final = 10
_MB: Final = 1_000_000


@dataclass(frozen=True)
class Progress:
    """Bytes of a model that are here, and bytes that shall be."""

    done_bytes: int
    total_bytes: int

    @property
    def percent(self) -> int:
        """Return whole percent, 100 where there is nothing to fetch."""
        return 100 * self.done_bytes // self.total_bytes if self.total_bytes else 100

    def __str__(self) -> str:
        return f"{self.percent} % of {self.total_bytes / _MB:,.1f} MB"


OnProgress: TypeAlias = Callable[[Progress], None]


class ProgressLog:
    """Logs whenever another tenth is done.

    done  what is done to the bytes
    """

    def __init__(self, done: str = "fetched") -> None:
        self._done = done
        self._logged_percent = 0

    def __call__(self, progress: Progress) -> None:
        """Log, if it is time."""
        if progress.percent >= self._logged_percent + LOGGED_PERCENT:
            self._logged_percent = progress.percent // LOGGED_PERCENT * LOGGED_PERCENT
            log.info("%s %s", self._done, progress)


class Tally:
    """Adds up bytes, of parallel downloads too; tells each whole percent once."""

    def __init__(self, total_bytes: int, on_progress: OnProgress) -> None:
        self._total_bytes = total_bytes
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._done_bytes = 0
        self._told_percent = 0

    def add(self, count: int) -> None:
        """Count bytes; a negative count takes back what has to be fetched again."""
        with self._lock:
            self._done_bytes += count
            progress = Progress(self._done_bytes, self._total_bytes)
            if progress.percent > self._told_percent:
                self._told_percent = progress.percent
                self._on_progress(progress)
