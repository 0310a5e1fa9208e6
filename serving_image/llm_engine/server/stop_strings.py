"""Stop strings in text that arrives in pieces. Pure; knows neither tokens nor HTTP."""

from collections.abc import Sequence


class StopStrings:
    """Finds the first stop string, wherever the borders of the pieces fall.

    Text that may turn out to be the beginning of a stop string is held back until it is clear.
    The stop string itself is never part of the output.

    found      whether a stop string has come
    remainder  what followed it in the piece that brought it
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False
        self.remainder = ""

    def push(self, piece: str) -> str:
        """Return the text that is now certain; after a stop string was found, nothing more."""
        if not self._stops:
            return piece
        if self.found:
            return ""
        text = self._held + piece
        starts = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if starts:
            self.found = True
            self._held = ""
            start = min(starts)
            stop = max((s for s in self._stops if text.startswith(s, start)), key=len)
            self.remainder = text[start + len(stop) :]
            return text[:start]
        certain = len(text) - max(_overlap(text, stop) for stop in self._stops)
        self._held = text[certain:]
        return text[:certain]

    def flush(self) -> str:
        """Return what was held back: the text has ended, so no stop string can follow."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` begin `stop`, without all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
