"""The text that Prometheus clients write, read fast: only the metrics asked for are looked at.

Tolerant: a line that makes no sense is passed over, since what is needed and missing is noticed
by who needs it.
"""

import re
from collections.abc import Collection
from typing import Final, NamedTuple

_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")


class Point(NamedTuple):
    """One line: the labels and the value, which may be NaN or infinite."""

    labels: dict[str, str]
    value: float


def parse(text: str, names: Collection[str]) -> dict[str, list[Point]]:
    """Return the points of each of these metric names that the text has; timestamps are dropped."""
    points: dict[str, list[Point]] = {}
    for line in text.split("\n"):
        if line.startswith("#"):
            continue
        end = line.find("{")
        if end < 0:
            end = line.find(" ")
        name = line[:end]
        if name in names:
            point = _point(line[end:])
            if point is not None:
                points.setdefault(name, []).append(point)
    return points


def _point(rest: str) -> Point | None:
    """Read labels and value from what follows the name."""
    labels: dict[str, str] = {}
    if rest.startswith("{"):
        at = 1
        while found := _LABEL.match(rest, at):
            labels[found[1]] = _unescaped(found[2])
            at = found.end()
            while rest[at : at + 1] in (",", " "):
                at += 1
        if rest[at : at + 1] != "}":
            return None
        rest = rest[at + 1 :]
    words = rest.split(None, 1)
    try:
        return Point(labels, float(words[0]))
    except (IndexError, ValueError):
        return None


def _unescaped(text: str) -> str:
    r"""Undo \\, \" and \n."""
    if "\\" not in text:
        return text
    return _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], text)
