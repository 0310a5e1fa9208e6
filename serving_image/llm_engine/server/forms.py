"""How generated text is dressed for each endpoint: as a whole, as an event, as closing usage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llm_engine.server.answers import (
    Answer,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
    Completion,
    CompletionChoice,
    Usage,
)
from llm_engine.server.generation import Piece


class Form(Protocol):
    """The dress of one answer. All its bodies carry the same id and time."""

    def whole(self, pieces: Sequence[Piece], usage: Usage) -> Answer:
        """Return the answer to a request that wants no stream; one piece per prompt."""

    def event(self, piece: Piece, is_first: bool, usage: Usage | None) -> Answer:
        """Return one event of a stream."""

    def closing(self, usage: Usage) -> Answer:
        """Return the event that ends a stream with what it cost."""


@dataclass(frozen=True)
class CompletionForm:
    """`/v1/completions`."""

    id: str
    created: int
    model: str

    def whole(self, pieces: Sequence[Piece], usage: Usage) -> Completion:
        """Return all texts, in the order of their prompts."""
        choices = [
            CompletionChoice(index=index, text=piece.text, finish_reason=piece.finish_reason)
            for index, piece in enumerate(pieces)
        ]
        return Completion(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage
        )

    def event(self, piece: Piece, is_first: bool, usage: Usage | None) -> Completion:
        """Return a piece of the text."""
        del is_first
        choice = CompletionChoice(text=piece.text, finish_reason=piece.finish_reason)
        return Completion(
            id=self.id, created=self.created, model=self.model, choices=[choice], usage=usage
        )

    def closing(self, usage: Usage) -> Completion:
        """Return the usage, with no text."""
        return Completion(
            id=self.id, created=self.created, model=self.model, choices=[], usage=usage
        )


@dataclass(frozen=True)
class ChatForm:
    """`/v1/chat/completions`."""

    id: str
    created: int
    model: str

    def whole(self, pieces: Sequence[Piece], usage: Usage) -> ChatCompletion:
        """Return the assistant's message."""
        choices = [
            ChatChoice(
                index=index,
                message=ChatMessage(content=piece.text),
                finish_reason=piece.finish_reason,
            )
            for index, piece in enumerate(pieces)
        ]
        return ChatCompletion(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage
        )

    def event(self, piece: Piece, is_first: bool, usage: Usage | None) -> ChatChunk:
        """Return a piece of the message; the first one says who speaks."""
        delta = ChatDelta(role="assistant" if is_first else None, content=piece.text)
        choice = ChatChunkChoice(delta=delta, finish_reason=piece.finish_reason)
        return ChatChunk(
            id=self.id, created=self.created, model=self.model, choices=[choice], usage=usage
        )

    def closing(self, usage: Usage) -> ChatChunk:
        """Return the usage, with no text."""
        return ChatChunk(
            id=self.id, created=self.created, model=self.model, choices=[], usage=usage
        )
