"""Turn a stream of tokens into a stream of text, never showing half a character."""

from collections.abc import Callable, Iterable
from typing import Final

_UNFINISHED: Final = "\N{REPLACEMENT CHARACTER}"
_CONTEXT_TOKENS: Final = 6
"""Tokens decoded again with each new one: how a token looks depends on those before it."""
_LONGEST_CHARACTER_BYTES: Final = 4


class Detokenizer:
    """The text of one request as it grows.

    A character may be spread over several tokens; what is not yet whole is held back.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._shown_tokens = 0  # their text has been returned
        self._context_start = 0

    def add(self, tokens: Iterable[int]) -> str:
        """Take new tokens and return the text that is now certain."""
        return "".join(self._add_one(token) for token in tokens)

    def finish(self) -> str:
        """Return what was held back, whole or not."""
        text = self._new_text()
        self._shown_tokens = len(self._tokens)
        return text

    def _add_one(self, token: int) -> str:
        self._tokens.append(token)
        text = self._new_text()
        held = len(self._tokens) - self._shown_tokens
        # A character has at most four bytes: after as many tokens it is broken, not unfinished.
        if text.endswith(_UNFINISHED) and held < _LONGEST_CHARACTER_BYTES:
            return ""
        self._shown_tokens = len(self._tokens)
        self._context_start = max(0, self._shown_tokens - _CONTEXT_TOKENS)
        return text

    def _new_text(self) -> str:
        before = self._decode(self._tokens[self._context_start : self._shown_tokens])
        after = self._decode(self._tokens[self._context_start :])
        return after[len(before) :]
