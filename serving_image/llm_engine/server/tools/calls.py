"""From generated text to function calls, piece by piece. Pure; knows neither tokens nor HTTP."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Protocol

from llm_engine.server.stop_strings import StopStrings

OPENING: Final = "<tool_call>"
CLOSING: Final = "</tool_call>"


@dataclass(frozen=True)
class Call:
    """A function that the model wants to have called.

    arguments  a JSON object, as text
    """

    name: str
    arguments: str


@dataclass(frozen=True)
class Spoken:
    """What has become certain of a message: text for the reader, and whole calls."""

    text: str = ""
    calls: tuple[Call, ...] = ()


class CallParser(Protocol):
    """Finds calls wherever the borders of the pieces fall."""

    def push(self, piece: str) -> Spoken:
        """Take the next piece of text."""

    def finish(self) -> Spoken:
        """Return what was held back: the text has ended."""


class TaggedCalls:
    """Calls between tags, with text around them: Hermes, Qwen.

    What stands between tags and is no call of a known function stays text.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._inside = False
        self._held = ""
        self._border = StopStrings([OPENING])
        self._called = False

    def push(self, piece: str) -> Spoken:
        """Take the next piece of text."""
        spoken = Spoken()
        rest: str | None = piece
        while rest is not None:
            new, rest = self._inner(rest) if self._inside else self._outer(rest)
            spoken = Spoken(spoken.text + new.text, spoken.calls + new.calls)
        return spoken

    def finish(self) -> Spoken:
        """Return what was held back; a call whose closing tag is missing counts if it is whole."""
        if not self._inside:
            return self._text(self._border.flush())
        call = as_call(self._held, ("arguments",), self._names)
        return Spoken(OPENING + self._held) if call is None else Spoken(calls=(call,))

    def _outer(self, piece: str) -> tuple[Spoken, str | None]:
        text = self._border.push(piece)
        if not self._border.found:
            return self._text(text), None
        self._inside, self._held = True, ""
        return self._text(text), self._border.remainder

    def _inner(self, piece: str) -> tuple[Spoken, str | None]:
        self._held += piece
        inner, closing, rest = self._held.partition(CLOSING)
        if not closing:
            return Spoken(), None
        self._inside, self._border = False, StopStrings([OPENING])
        call = as_call(inner, ("arguments",), self._names)
        if call is None:
            return Spoken(OPENING + inner + CLOSING), rest
        self._called = True
        return Spoken(calls=(call,)), rest

    def _text(self, text: str) -> Spoken:
        # The line breaks between and after calls are part of the format.
        return Spoken("" if self._called and not text.strip() else text)


class BareCalls:
    """A message that is nothing but calls, one JSON object each: Llama 3.

    A message that begins otherwise is text; so is the rest once an object is no call.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._held = ""
        self._is_text = False
        self._decoder = json.JSONDecoder()

    def push(self, piece: str) -> Spoken:
        """Take the next piece of text."""
        if self._is_text:
            return Spoken(piece)
        self._held += piece
        calls: list[Call] = []
        while (begun := self._held.lstrip(" \n;")).startswith("{") and "}" in piece:
            try:
                value, end = self._decoder.raw_decode(begun)
            except (ValueError, RecursionError):
                break  # not whole yet
            call = as_call(value, ("parameters", "arguments"), self._names)
            if call is None:
                self._is_text = True
                break
            calls.append(call)
            self._held = begun[end:]
        if begun and not begun.startswith("{"):
            self._is_text = True
        return Spoken(self._release() if self._is_text else "", tuple(calls))

    def finish(self) -> Spoken:
        """Return what was held back."""
        held = self._release()
        return Spoken(held if held.strip(" \n;") else "")

    def _release(self) -> str:
        held, self._held = self._held, ""
        return held


def as_call(value: Any, argument_keys: Collection[str], names: Collection[str]) -> Call | None:
    """Return a call of a known function, from JSON or its text; None where it is something else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, dict) or value.get("name") not in names:
        return None
    arguments: object = next((value[key] for key in argument_keys if key in value), {})
    if not isinstance(arguments, dict):
        return None
    return Call(value["name"], json.dumps(arguments, ensure_ascii=False))
