"""Words of a vocabulary that stand for bytes: how a tokenizer writes half a character."""

import re
from typing import Final

WORD_BEGIN: Final = "\u2581"
"""How SentencePiece vocabularies write a blank: LOWER ONE EIGHTH BLOCK."""

_ONE_BYTE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""How SentencePiece vocabularies write a single byte."""


def _letter_of_byte() -> dict[int, str]:
    """Return GPT-2's alphabet: visible Latin-1 letters stand for themselves, the rest follow."""
    visible = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
    hidden = [byte for byte in range(256) if byte not in visible]
    others = {byte: chr(0x100 + index) for index, byte in enumerate(hidden)}
    return {byte: chr(byte) for byte in visible} | others


_BYTE_OF_LETTER: Final = {letter: byte for byte, letter in _letter_of_byte().items()}


def bytes_of_word(word: str) -> bytes | None:
    """Return the bytes that a vocabulary's word stands for; None where it is written otherwise."""
    one = _ONE_BYTE.fullmatch(word)
    if one is not None:
        return bytes([int(one[1], 16)])
    if word and all(letter in _BYTE_OF_LETTER for letter in word):
        return bytes(_BYTE_OF_LETTER[letter] for letter in word)
    return None
