"""The turns of a conversation."""

from typing import Literal

from llm_engine.server.fields.model import RequestModel


class TextPart(RequestModel):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: str


class Message(RequestModel):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    refusal: None = None

    @property
    def text(self) -> str:
        """The whole text."""
        if self.content is None:
            return ""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)
