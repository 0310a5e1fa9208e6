"""Render a chat with the model's own template, which is code from a stranger."""

import functools
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MOST_CHARACTERS: Final = 1_000_000
"""Of the whole text, and of any value on the way to it."""
MOST_SECONDS: Final = 1.0
"""Checked at every turn of a loop and at every call. Real templates take under a millisecond."""
MOST_EXPONENT: Final = 1000

_deadline_s: ContextVar[float] = ContextVar("deadline_s")
_TICKING: Final = "limit_time"
_BOUNDED: Final = "limit_size"
_WIDE_FIELD: Final = re.compile(r"\d{5,}|\*")
"""A width in a format string that would fill memory with blanks."""


class TemplateRejected(Exception):
    """The template does not compile, refuses these messages, or goes beyond its limits."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """A sandbox in which nothing takes all time or all memory."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call(  # as Jinja declares it, but for names
        self, context: jinja2.runtime.Context, called: Any, /, *arguments: Any, **named: Any
    ) -> Any:
        """Call a function, a method or a macro, while there is time."""
        _check_time()
        _check_arguments(called, arguments)
        return _checked(super().call(context, called, *arguments, **named))

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        """Compute what is small enough."""
        numbers = [side for side in (left, right) if isinstance(side, int)]
        sized = [len(side) for side in (left, right) if hasattr(side, "__len__")]
        if operator == "*" and any(
            abs(n) * size > MOST_CHARACTERS for n in numbers for size in sized
        ):
            raise TemplateRejected(f"a product of {numbers} and {sized} elements is too large")
        if operator == "**" and any(abs(n) > MOST_EXPONENT for n in numbers):
            raise TemplateRejected(f"a power of {numbers} is too large")
        if operator == "%" and isinstance(left, str):
            _check_format(left)
        return _checked(super().call_binop(context, operator, left, right))


class _Limits(NodeTransformer):
    """Puts a check into every loop and around every concatenation."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 (Jinja's visitor)
        """Have each turn of the loop look at the clock."""
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _TICKING)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802
        """Have the size of the result checked."""
        self.generic_visit(node)
        return _filtered(node, _BOUNDED)


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    assert isinstance(node, nodes.Expr), "loops and concatenations work on expressions"
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _ticking(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _check_time()
        yield item


def _limited(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that is checked like a call."""

    @functools.wraps(apply)  # Jinja's marks of what it wants passed go along
    def checked(*arguments: Any, **named: Any) -> Any:
        _check_time()
        _check_arguments(apply, (*arguments, *named.values()))
        return _checked(apply(*arguments, **named))

    return checked


def _check_time() -> None:
    if time.monotonic() > _deadline_s.get():
        raise TemplateRejected(f"the chat template runs longer than {MOST_SECONDS} s")


def _check_arguments(called: Any, arguments: Iterable[Any]) -> None:
    """Refuse what could make a huge text out of small ones: widths, counts, replacements."""
    texts = [one for one in arguments if isinstance(one, str)]
    counts = [one for one in arguments if isinstance(one, int)]
    if any(abs(count) > MOST_CHARACTERS for count in counts):
        raise TemplateRejected(f"the chat template asks for {max(counts)} characters or turns")
    method = getattr(called, "__wrapped__", called)  # Jinja wraps str.format
    owner = getattr(method, "__self__", None)
    texts += [owner] if isinstance(owner, str) else []
    name = getattr(called, "__name__", "")
    if "format" in name and texts:
        _check_format(max(texts, key=len))
    longest = sorted((len(text) for text in texts), reverse=True)[:2]
    if name in _MULTIPLYING and math.prod(longest) > 10 * MOST_CHARACTERS:
        raise TemplateRejected(f"{name} of {longest} characters may grow too large")


_MULTIPLYING: Final = ("replace", "do_replace", "join", "sync_do_join")


def _check_format(text: str) -> None:
    if _WIDE_FIELD.search(text):
        raise TemplateRejected("the chat template formats with too wide a field")


def _checked(value: Any) -> Any:
    if isinstance(value, (str, list, tuple, dict)) and len(value) > MOST_CHARACTERS:
        raise _too_large(len(value))
    return value


def _too_large(characters: int) -> TemplateRejected:
    return TemplateRejected(
        f"the chat template made {characters} characters; at most {MOST_CHARACTERS} are allowed"
    )


class ChatTemplate:
    """A compiled template with the names that templates expect to find."""

    def __init__(self, source: str, special_words: Mapping[str, str]) -> None:
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.filters = {name: _limited(f) for name, f in environment.filters.items()}
        environment.filters |= {_TICKING: _ticking, _BOUNDED: _checked}
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self._special_words = dict(special_words)
        self.source = source
        try:
            limited = _Limits().visit(environment.parse(source))
            self._template = environment.from_string(limited)
        except (jinja2.TemplateError, RecursionError) as error:
            raise TemplateRejected(f"the chat template does not compile: {error}") from error

    def render(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """Render messages; options are the template's own, such as `add_generation_prompt`."""
        names = {**self._special_words, **options, "messages": messages}
        pieces: list[str] = []
        characters = 0
        token = _deadline_s.set(time.monotonic() + MOST_SECONDS)
        try:
            for piece in self._template.generate(**names):
                pieces.append(piece)
                characters += len(piece)
                if characters > MOST_CHARACTERS:
                    raise _too_large(characters)
                _check_time()
        except TemplateRejected:
            raise
        except Exception as error:  # the template's own code failed, in whatever way
            raise TemplateRejected(f"the chat template refused the messages: {error}") from error
        finally:
            _deadline_s.reset(token)
        return "".join(pieces)


def _to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateRejected(message)


def _strftime_now(form: str) -> str:
    # Templates print today's date in the machine's zone, as transformers does.
    return datetime.now().astimezone().strftime(form)  # noqa: TID251 (the template asks the time)
