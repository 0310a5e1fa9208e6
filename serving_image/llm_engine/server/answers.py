"""The bodies of our answers, as OpenAI's clients parse them."""

from typing import Literal

from pydantic import BaseModel, Field

AnswerReason = Literal["stop", "length", "tool_calls"]


def _is_none(value: object) -> bool:
    return value is None


class PromptTokensDetails(BaseModel):
    """What of the prompt cost nothing."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens that a request cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> "Usage":
        """Return the usage with its sum."""
        return cls(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=cached_tokens),
        )


class Answer(BaseModel):
    """What every answer carries."""

    id: str
    created: int
    model: str
    usage: Usage | None = None


class CompletionLogprobs(BaseModel):
    """Log-probabilities of a text, token by token, in OpenAI's older form.

    text_offset  where each token begins in the text, in characters

    The first token of an echoed prompt follows nothing: its log-probability is null.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One text; in a stream a piece of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: AnswerReason | None


class Completion(Answer):
    """Answer of `/v1/completions`, and each event of its stream."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]


class ChatWord(BaseModel):
    """A token with its log-probability."""

    token: str
    logprob: float | None
    bytes: list[int]


class ChatToken(ChatWord):
    """A token of the answer, and the most probable ones at its place."""

    top_logprobs: list[ChatWord]


class ChatLogprobs(BaseModel):
    """Log-probabilities of a message, token by token."""

    content: list[ChatToken]
    refusal: None = None


class CalledFunction(BaseModel):
    """A function's name, and its arguments as the text of a JSON object."""

    name: str
    arguments: str


class AnswerToolCall(BaseModel):
    """A function that the assistant wants to have called."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChunkToolCall(AnswerToolCall):
    """One of several calls of a message, in a stream."""

    index: int


class ChatMessage(BaseModel):
    """What the assistant said; null where it only calls functions."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[AnswerToolCall] | None = Field(default=None, exclude_if=_is_none)


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: AnswerReason | None


class ChatCompletion(Answer):
    """Answer of `/v1/chat/completions`."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


class ChatDelta(BaseModel):
    """What an event adds to the answer."""

    role: Literal["assistant"] | None = Field(default=None, exclude_if=_is_none)
    content: str | None = Field(default=None, exclude_if=_is_none)
    tool_calls: list[ChunkToolCall] | None = Field(default=None, exclude_if=_is_none)


class ChatChunkChoice(BaseModel):
    """A piece of one answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: AnswerReason | None


class ChatChunk(Answer):
    """One event of the stream of `/v1/chat/completions`."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChatChunkChoice]


class Model(BaseModel):
    """One entry of `/v1/models`."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "llm-engine"
    max_model_len: int


class ModelList(BaseModel):
    """Answer of `/v1/models`."""

    object: Literal["list"] = "list"
    data: list[Model]


class Tokens(BaseModel):
    """Answer of `/tokenize`."""

    count: int
    max_model_len: int
    tokens: list[int]


class Text(BaseModel):
    """Answer of `/detokenize`."""

    prompt: str


class Version(BaseModel):
    """Answer of `/version`."""

    version: str


class Draining(BaseModel):
    """Answer of `/drain`."""

    draining: Literal[True] = True
