"""How generated text is dressed for each endpoint: as a whole, as an event, as closing usage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from llm_engine.server.answers import (
    Answer,
    AnswerToolCall,
    CalledFunction,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    ChatToken,
    ChatWord,
    ChunkToolCall,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    Usage,
)
from llm_engine.server.generation import Piece, ToolCall
from llm_engine.server.logprobs import Word, WordLogprob


class Dress(Protocol):
    """The dress of one answer. All its bodies carry the same id and time."""

    def whole(self, pieces: Sequence[Piece], usage: Usage) -> Answer:
        """Return the answer to a request that wants no stream; one piece per text."""

    def event(self, index: int, piece: Piece, is_first: bool, usage: Usage | None) -> Answer:
        """Return one event of a stream: a piece of the text of this index."""

    def closing(self, usage: Usage) -> Answer:
        """Return the event that ends a stream with what it cost."""


@dataclass(frozen=True)
class CompletionDress:
    """`/v1/completions`.

    with_logprobs  whether the caller asked for log-probabilities
    """

    id: str
    created: int
    model: str
    with_logprobs: bool

    def whole(self, pieces: Sequence[Piece], usage: Usage) -> Completion:
        """Return all texts, in the order of their prompts."""
        return self._dress([self._choice(i, piece) for i, piece in enumerate(pieces)], usage)

    def event(self, index: int, piece: Piece, is_first: bool, usage: Usage | None) -> Completion:
        """Return a piece of the text."""
        del is_first
        return self._dress([self._choice(index, piece)], usage)

    def closing(self, usage: Usage) -> Completion:
        """Return the usage, with no text."""
        return self._dress([], usage)

    def _dress(self, choices: list[CompletionChoice], usage: Usage | None) -> Completion:
        return Completion(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage
        )

    def _choice(self, index: int, piece: Piece) -> CompletionChoice:
        return CompletionChoice(
            index=index,
            text=piece.text,
            logprobs=_completion_logprobs(piece.logprobs) if self.with_logprobs else None,
            finish_reason=piece.finish_reason,
        )


@dataclass(frozen=True)
class ChatDress:
    """`/v1/chat/completions`.

    with_logprobs  whether the caller asked for log-probabilities
    """

    id: str
    created: int
    model: str
    with_logprobs: bool

    def whole(self, pieces: Sequence[Piece], usage: Usage) -> ChatCompletion:
        """Return the assistant's messages."""
        choices = [
            ChatChoice(
                index=index,
                message=_message(piece),
                logprobs=self._logprobs(piece),
                finish_reason=piece.finish_reason,
            )
            for index, piece in enumerate(pieces)
        ]
        return ChatCompletion(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage
        )

    def event(self, index: int, piece: Piece, is_first: bool, usage: Usage | None) -> ChatChunk:
        """Return a piece of a message; its first one says who speaks."""
        choice = ChatChunkChoice(
            index=index,
            delta=_delta(piece, is_first),
            logprobs=self._logprobs(piece),
            finish_reason=piece.finish_reason,
        )
        return self._chunk([choice], usage)

    def closing(self, usage: Usage) -> ChatChunk:
        """Return the usage, with no text."""
        return self._chunk([], usage)

    def _chunk(self, choices: list[ChatChunkChoice], usage: Usage | None) -> ChatChunk:
        return ChatChunk(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=usage
        )

    def _logprobs(self, piece: Piece) -> ChatLogprobs | None:
        if not self.with_logprobs:
            return None
        return ChatLogprobs(content=[_chat_token(logprob) for logprob in piece.logprobs])


def _message(piece: Piece) -> ChatMessage:
    if not piece.calls:
        return ChatMessage(content=piece.text)
    calls = [AnswerToolCall(id=call.id, function=_function(call)) for call in piece.calls]
    return ChatMessage(content=piece.text or None, tool_calls=calls)


def _delta(piece: Piece, is_first: bool) -> ChatDelta:
    calls = [
        ChunkToolCall(index=call.index, id=call.id, function=_function(call))
        for call in piece.calls
    ]
    content = piece.text or (None if calls else "")
    role: Literal["assistant"] | None = "assistant" if is_first else None
    return ChatDelta(role=role, content=content, tool_calls=calls or None)


def _function(call: ToolCall) -> CalledFunction:
    return CalledFunction(name=call.name, arguments=call.arguments)


def _completion_logprobs(logprobs: Sequence[WordLogprob]) -> CompletionLogprobs:
    return CompletionLogprobs(
        tokens=[one.word.text for one in logprobs],
        token_logprobs=[one.word.logprob for one in logprobs],
        # The token itself is always there, so there may be one more than was asked for.
        top_logprobs=[
            None
            if one.word.logprob is None
            else {word.text: word.logprob for word in (one.word, *one.top)}
            for one in logprobs
        ],
        text_offset=[one.offset for one in logprobs],
    )


def _chat_token(logprob: WordLogprob) -> ChatToken:
    top = [ChatWord(**_letters(word)) for word in logprob.top]
    return ChatToken(**_letters(logprob.word), top_logprobs=top)


def _letters(word: Word) -> dict[str, object]:
    return {"token": word.text, "logprob": word.logprob, "bytes": list(word.raw)}
