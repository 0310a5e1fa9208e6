"""The turns of a conversation."""

import json
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from llm_engine.server.fields.model import RequestModel, refused


class TextPart(RequestModel):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: str


class MessageFunction(RequestModel):
    """What was called; the arguments are the text of a JSON object."""

    name: str
    arguments: str


class MessageToolCall(RequestModel):
    """A call that the assistant made in an earlier turn."""

    id: str
    type: Literal["function"]
    function: MessageFunction

    @model_validator(mode="after")
    def _check_arguments(self) -> Self:
        if self.arguments() is None:
            name = self.function.name
            raise refused("messages", f"the arguments of the call of {name!r} are no JSON object")
        return self

    def arguments(self) -> dict[str, Any] | None:
        """Return the arguments as templates want them; None where they are no JSON object."""
        try:
            arguments = json.loads(self.function.arguments or "{}")
        except (ValueError, RecursionError):
            return None
        return arguments if isinstance(arguments, dict) else None


class Message(RequestModel):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    refusal: None = None
    tool_calls: list[MessageToolCall] | None = Field(default=None, max_length=128)
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _check_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise refused("messages", f"tool_calls are the assistant's, not of role {self.role!r}")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise refused("messages", "tool_call_id goes with the role 'tool', which needs it")
        return self

    @property
    def text(self) -> str:
        """The whole text."""
        if self.content is None:
            return ""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)

    def turn(self) -> dict[str, Any]:
        """Return the message as chat templates read it."""
        # Templates know "system"; "developer" is OpenAI's newer word for it.
        role = "system" if self.role == "developer" else self.role
        turn: dict[str, Any] = {"role": role, "content": self.text}
        if self.name is not None:
            turn["name"] = self.name
        if self.tool_call_id is not None:
            turn["tool_call_id"] = self.tool_call_id
        if self.tool_calls:
            turn["tool_calls"] = [_turn_call(call) for call in self.tool_calls]
        return turn


def _turn_call(call: MessageToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.arguments()}
    return {"id": call.id, "type": "function", "function": function}
