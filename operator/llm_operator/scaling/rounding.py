"""Numbers as people read them."""

from typing import overload


@overload
def rounded(value: float) -> float: ...
@overload
def rounded(value: None) -> None: ...
def rounded(value: float | None) -> float | None:
    """Return the number with three significant digits; whole where it is large."""
    if value is None:
        return None
    short = float(f"{value:.3g}")
    return int(short) if short == int(short) else short


def in_words(seconds: float) -> str:
    """Write seconds for a sentence: 61 ms, 1.3 s, 4 min."""
    if seconds < 1:
        return f"{rounded(seconds * 1000):g} ms"
    if seconds < 120:
        return f"{rounded(seconds):g} s"
    return f"{seconds / 60:.0f} min"
