"""Where the process stands between its start and its end: starting, ready, draining."""

import time
from collections.abc import Callable


class Lifecycle:
    """Phases of the start-up and the seconds each took; then whether it drains.

    Phases may be entered from any thread: each is one append, and readers copy.

    began_s  when the process began, on `clock`
    """

    def __init__(self, began_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entered: list[tuple[str, float]] = [("process", began_s)]
        self._started_s: float | None = None
        self.draining = False

    def enter(self, phase: str) -> None:
        """Begin a phase, which ends the one before it; entering it again changes nothing."""
        if phase != self.phase:
            self._entered.append((phase, self._clock()))

    def finish_start(self) -> None:
        """End the start-up: weights are loaded and a first token was produced."""
        self._started_s = self._clock()

    @property
    def phase(self) -> str:
        """Name of the phase that the process is in."""
        if self.draining:
            return "draining"
        return self._entered[-1][0] if self._started_s is None else "ready"

    @property
    def started(self) -> bool:
        """Whether the start-up has ended; stays true while draining."""
        return self._started_s is not None

    @property
    def ready(self) -> bool:
        """Whether new requests are welcome."""
        return self.started and not self.draining

    def start_seconds(self) -> float:
        """Return seconds from process start to the end of the start-up, or so far."""
        end_s = self._clock() if self._started_s is None else self._started_s
        return end_s - self._entered[0][1]

    def seconds_by_phase(self) -> dict[str, float]:
        """Return the seconds of each phase of the start-up; the current one's so far."""
        entered = list(self._entered)
        end_s = self._clock() if self._started_s is None else self._started_s
        ends = [at_s for _, at_s in entered[1:]] + [end_s]
        seconds: dict[str, float] = {}
        for (phase, at_s), until_s in zip(entered, ends, strict=True):
            seconds[phase] = seconds.get(phase, 0.0) + until_s - at_s
        return seconds


def process_began_s() -> float:
    """Return when this process was started, on `time.monotonic`'s clock.

    The interpreter's own start and our first imports count too; where /proc is missing they do not.
    """
    now_s = time.monotonic()
    try:
        import os
        from pathlib import Path

        # Fields after the parenthesized name start at 3; starttime is field 22 (man 5 proc).
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        began_since_boot_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return now_s - (time.clock_gettime(time.CLOCK_BOOTTIME) - began_since_boot_s)
    except (OSError, ValueError, IndexError, AttributeError):
        return now_s
