"""A tokenizer that needs no file: one token a byte. Stands in where there is no model."""

import codecs
from collections.abc import Mapping, Sequence
from typing import Any, Final

END_TOKEN: Final = 256
VOCABULARY: Final = 257


class ByteDetokenizer:
    """The text of one request as it grows, never half a character."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, tokens: Sequence[int]) -> str:
        """Take new tokens and return the text that is now certain."""
        return self._decoder.decode(bytes(token for token in tokens if token < END_TOKEN))

    def finish(self) -> str:
        """Return what was held back, whole or not."""
        return self._decoder.decode(b"", final=True)


class ByteTokenizer:
    """Text to UTF-8 and back.

    eos_tokens  the one token that is no byte ends a text
    """

    eos_tokens = frozenset({END_TOKEN})
    has_chat_template = True
    chat_template = None

    @property
    def vocabulary(self) -> int:
        """Count ids."""
        return VOCABULARY

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the bytes of text; what UTF-8 cannot hold becomes a question mark."""
        del add_special_tokens  # there are none to add
        return list(text.encode("utf-8", errors="replace"))

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of tokens."""
        del skip_special_tokens  # the end has no text
        return bytes(token for token in tokens if token < END_TOKEN).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """Return what one token adds to a text."""
        return bytes([token]) if token < END_TOKEN else b""

    def detokenizer(self, *, skip_special_tokens: bool = True) -> ByteDetokenizer:
        """Return a decoder for one stream of tokens."""
        del skip_special_tokens
        return ByteDetokenizer()

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], **options: Any
    ) -> list[int]:
        """Return the tokens of a conversation, a line for each turn."""
        del options
        return self.encode("".join(f"{m['role']}: {m['content']}\n" for m in messages))
