"""What a request's tools mean for its prompt, its grammar and its answer."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from llm_engine.server.errors import ApiError
from llm_engine.server.fields.requests import ChatCompletionRequest
from llm_engine.server.fields.structured import Form
from llm_engine.server.fields.tools import Function, NamedTool
from llm_engine.server.generation import Piece, ToolCall
from llm_engine.server.logprobs import WordLogprob
from llm_engine.server.tools.formats import FORMATS, ToolFormat, format_of


@dataclass(frozen=True)
class ToolUse:
    """Tools that the model may or must call.

    functions  those that it may call
    required   whether it must
    several    whether it may call more than one
    """

    format: ToolFormat
    functions: tuple[Function, ...]
    required: bool
    several: bool

    @property
    def form(self) -> Form | None:
        """The form that the text must have; None: any text will do, whatever calls it holds."""
        if not self.required and not any(function.strict for function in self.functions):
            return None
        grammar = self.format.grammar(self.functions, required=self.required, several=self.several)
        return Form("tools", grammar)

    async def calls(self, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        """Yield the pieces with the calls taken out of their text."""
        parser = self.format.parser({function.name for function in self.functions})
        logprobs: tuple[WordLogprob, ...] = ()
        called = 0
        async with aclosing(pieces):
            async for piece in pieces:
                logprobs += piece.logprobs
                spoken = parser.push(piece.text)
                text, found = spoken.text, spoken.calls
                if piece.finish_reason is not None:
                    last = parser.finish()
                    text, found = text + last.text, found + last.calls
                if not self.several:
                    found = found[: 1 - called]
                calls = tuple(
                    ToolCall(called + index, f"call_{uuid.uuid4().hex}", call.name, call.arguments)
                    for index, call in enumerate(found)
                )
                called += len(calls)
                reason = piece.finish_reason
                if called and (reason == "stop" or not self.several):
                    reason = "tool_calls"
                if text or calls or reason is not None:
                    yield replace(
                        piece, text=text, calls=calls, finish_reason=reason, logprobs=logprobs
                    )
                    logprobs = ()
                if reason is not None:
                    return


def tool_use(fields: ChatCompletionRequest, template: str | None) -> ToolUse | None:
    """Return how the tools of a request are used; None where it has none, or wants none called.

    Raises `ApiError` (400) for a model that speaks no format that we know.
    """
    choice = fields.tool_choice
    if not fields.tools or choice == "none":
        return None
    spoken = format_of(template)
    if spoken is None:
        known = ", ".join(one.name for one in FORMATS)
        message = f"tools is not supported by this model: its template speaks none of {known}"
        raise ApiError(400, message, param="tools", code="unsupported_parameter")
    functions = tuple(tool.function for tool in fields.tools)
    if isinstance(choice, NamedTool):
        functions = tuple(one for one in functions if one.name == choice.function.name)
    named = isinstance(choice, NamedTool)
    return ToolUse(
        format=spoken,
        functions=functions,
        required=named or choice == "required",
        several=not named and fields.parallel_tool_calls is not False,
    )


def template_tools(fields: ChatCompletionRequest) -> list[dict[str, Any]]:
    """Return the tools as chat templates read them."""
    return [tool.model_dump(exclude_none=True) for tool in fields.tools or ()]
