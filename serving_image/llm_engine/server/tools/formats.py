"""The ways in which models write function calls, and how to tell which one a model speaks."""

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llm_engine.sampling.grammar import JSON_OPTIONS
from llm_engine.server.fields.tools import Function
from llm_engine.server.tools.calls import CLOSING, OPENING, BareCalls, CallParser, TaggedCalls

_NO_PARAMETERS: Final = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True)
class ToolFormat:
    """One way to write calls.

    speaks        tells from a chat template whether its model writes calls so
    parser        finds calls of functions with these names in a text
    arguments_key what a call names its arguments
    required      the grammar's rules of a text that is nothing but calls
    optional      those of a text that may hold calls, or none
    separator     what stands between two calls
    """

    name: str
    speaks: Callable[[str], bool]
    parser: Callable[[Collection[str]], CallParser]
    arguments_key: str
    required: str
    optional: str
    separator: str

    def grammar(self, functions: Sequence[Function], *, required: bool, several: bool) -> str:
        """Return the grammar (llguidance's Lark) of texts whose calls satisfy their schemas.

        required  whether the text must be calls, and nothing else
        several   whether more than one call may follow
        """
        many = f"({_quote(self.separator)} call)*" if several else ""
        rules = (self.required if required else self.optional).replace("MANY", many)
        options = [f"body_{index}" for index in range(len(functions))]
        lines = ["%llguidance {}", rules, f"body: {' | '.join(options)}"]
        for option, function in zip(options, functions, strict=True):
            head = f'{{"name": "{function.name}", "{self.arguments_key}": '
            schema = _schema(function)
            lines.append(f'{option}: {_quote(head)} %json {json.dumps(schema)} "}}"')
        return "\n".join(lines)


def _schema(function: Function) -> dict[str, Any]:
    schema = _NO_PARAMETERS if function.parameters is None else function.parameters
    return {**schema, "x-guidance": JSON_OPTIONS}


def _quote(text: str) -> str:
    return json.dumps(text)


def _speaks_hermes(template: str) -> bool:
    others = ("<function=", "<arg_key>")  # the same tag around another format
    has_arguments = re.search(r'arguments\\?["\']', template) is not None
    return OPENING in template and has_arguments and not any(one in template for one in others)


def _speaks_llama3(template: str) -> bool:
    return "<|start_header_id|>" in template and "dictionary of argument name" in template


_HERMES_CALL: Final = f"call: {_quote(OPENING + chr(10))} body {_quote(chr(10) + CLOSING)}"

FORMATS: Final = (
    ToolFormat(
        name="hermes",
        speaks=_speaks_hermes,
        parser=TaggedCalls,
        arguments_key="arguments",
        required=f"start: call MANY\n{_HERMES_CALL}",
        # Text runs up to the first tag, which the lexer finds by itself ("lazy").
        optional=(
            f"start: (trigger_call MANY)? TEXT\n"
            f"TEXT: /(.|\\n)*/\n"
            f"trigger[lazy]: TEXT {_quote(OPENING)}\n"
            f"trigger_call: trigger {_quote(chr(10))} body {_quote(chr(10) + CLOSING)}\n"
            f"{_HERMES_CALL}"
        ),
        separator="\n",
    ),
    ToolFormat(
        name="llama3",
        speaks=_speaks_llama3,
        parser=BareCalls,
        arguments_key="parameters",
        required="start: call MANY\ncall: body",
        optional="start: call MANY | TEXT\nTEXT: /([^{\\s](.|\\n)*)?/\ncall: body",
        separator="; ",
    ),
)


def format_of(template: str | None) -> ToolFormat | None:
    """Return the format that a model with this chat template speaks; None: none that we know."""
    if template is None:
        return None
    return next((one for one in FORMATS if one.speaks(template)), None)
