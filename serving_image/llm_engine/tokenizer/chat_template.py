"""Render a chat with the model's own template, which is code from a stranger."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_CHARACTERS: Final = 1_000_000
MOST_SECONDS: Final = 1.0
"""Checked whenever the template writes something. Real templates take well under a millisecond."""


MOST_EXPONENT: Final = 1000


class TemplateRejected(Exception):
    """The template does not compile, refuses these messages, or writes without end."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """A sandbox in which no single product can take all memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        """Multiply what is small enough."""
        numbers = [side for side in (left, right) if isinstance(side, int)]
        sized = [len(side) for side in (left, right) if hasattr(side, "__len__")]
        if any(abs(n) * size > MOST_CHARACTERS for n in numbers for size in sized):
            raise TemplateRejected(f"a product of {numbers} and {sized} elements is too large")
        if operator == "**" and any(abs(n) > MOST_EXPONENT for n in numbers):
            raise TemplateRejected(f"a power of {numbers} is too large")
        return super().call_binop(context, operator, left, right)


class ChatTemplate:
    """A compiled template with the names that templates expect to find."""

    def __init__(self, source: str, special_words: Mapping[str, str]) -> None:
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self._special_words = dict(special_words)
        self.source = source
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise TemplateRejected(f"the chat template does not compile: {error}") from error

    def render(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """Render messages; options are the template's own, such as `add_generation_prompt`."""
        names = {**self._special_words, **options, "messages": messages}
        pieces: list[str] = []
        characters = 0
        deadline_s = time.monotonic() + MOST_SECONDS
        try:
            for piece in self._template.generate(**names):
                pieces.append(piece)
                characters += len(piece)
                if characters > MOST_CHARACTERS or time.monotonic() > deadline_s:
                    raise TemplateRejected(
                        f"the chat template wrote {characters} characters; "
                        f"at most {MOST_CHARACTERS} in {MOST_SECONDS} s are allowed"
                    )
        except TemplateRejected:
            raise
        except Exception as error:  # the template's own code failed, in whatever way
            raise TemplateRejected(f"the chat template refused the messages: {error}") from error
        return "".join(pieces)


def _to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateRejected(message)


def _strftime_now(form: str) -> str:
    # Templates print today's date in the machine's zone, as transformers does.
    return datetime.now().astimezone().strftime(form)  # noqa: TID251 (the template asks the time)
