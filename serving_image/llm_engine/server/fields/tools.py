"""The fields that let a model call functions."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, JsonValue

from llm_engine.server.fields.model import RequestModel, refused

_NAME = r"^[a-zA-Z0-9_-]{1,64}$"


class Function(RequestModel):
    """What a function is called, what it does and what it takes (a JSON schema)."""

    name: str = Field(pattern=_NAME)
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class Tool(RequestModel):
    """Something that the model may call."""

    type: Literal["function"]
    function: Function


class FunctionName(RequestModel):
    """A function, by its name."""

    name: str = Field(pattern=_NAME)


class NamedTool(RequestModel):
    """The function that has to be called."""

    type: Literal["function"]
    function: FunctionName


ToolChoice = Literal["none", "auto", "required"] | NamedTool


def check_tools(tools: Sequence[Tool], choice: ToolChoice | None) -> None:
    """Refuse tools of one name, and a choice among tools that are not there."""
    names = [tool.function.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise refused("tools", f"tools has two functions named {twice!r}")
    if isinstance(choice, NamedTool) and choice.function.name not in names:
        known = ", ".join(names) or "none"
        message = f"tool_choice wants {choice.function.name!r}; tools has {known}"
        raise refused("tool_choice", message)
    if choice == "required" and not names:
        raise refused("tool_choice", "tool_choice is required, and tools is empty")
