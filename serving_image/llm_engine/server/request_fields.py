"""The fields of a request, as pydantic models: what is honoured, and what is refused by name.

A field that would change the answer and is not supported is refused, never ignored.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from llm_engine.sampling.parameters import SamplingParameters

# Fields we know and do not support, with the values that ask for nothing: those may pass.
_UNSUPPORTED: Final[Mapping[str, tuple[JsonValue, ...]]] = {
    "audio": (None,),
    "best_of": (None, 1),
    "echo": (None, False),
    "function_call": (None, "none", "auto"),
    "functions": (None, []),
    "guided_choice": (None,),
    "guided_grammar": (None,),
    "guided_json": (None,),
    "guided_regex": (None,),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "modalities": (None, ["text"]),
    "n": (None, 1),
    "parallel_tool_calls": (None, True, False),
    "prediction": (None,),
    "reasoning_effort": (None,),
    "response_format": (None, {"type": "text"}),
    "structured_outputs": (None,),
    "suffix": (None, ""),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
    "top_logprobs": (None,),
    "verbosity": (None,),
    "web_search_options": (None,),
}

# Fields that say something about the caller and nothing about the answer.
_WITHOUT_EFFECT: Final = (
    "metadata",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)


class RequestModel(BaseModel):
    """Strict: `"5"` is no number, and an unknown field is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class StreamOptions(RequestModel):
    """What a stream carries besides text."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class GenerationFields(RequestModel):
    """What both ways of asking for text have in common."""

    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)  # -1 and 0: all, as vLLM has it
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = Field(default=None, max_length=64)
    ignore_eos: bool | None = None
    min_tokens: int | None = Field(default=None, ge=0)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for name, neutral in _UNSUPPORTED.items():
            if name in data and not any(_same(data[name], value) for value in neutral):
                raise PydanticCustomError(
                    "unsupported", "{name} is not supported by this server", {"name": name}
                )
        passing = (*_UNSUPPORTED, *_WITHOUT_EFFECT)
        return {name: value for name, value in data.items() if name not in passing}

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise _refused("stream_options", "stream_options needs stream to be true")
        if any(not stop or len(stop) > 1024 for stop in self.stops):
            raise _refused("stop", "stop takes strings of 1 to 1024 characters")
        if len(self.stops) > 16:
            raise _refused("stop", f"stop takes at most 16 strings, not {len(self.stops)}")
        limit = self.output_limit
        if limit is not None and self.min_tokens is not None and self.min_tokens > limit:
            raise _refused(
                "min_tokens", f"min_tokens ({self.min_tokens}) exceeds max_tokens ({limit})"
            )
        return self

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def output_limit(self) -> int | None:
        """Most tokens that the caller wants; None: as many as the context holds."""
        return self.max_tokens

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def continuous_usage(self) -> bool:
        """Whether every event of a stream carries its usage so far."""
        return self.stream_options is not None and self.stream_options.continuous_usage_stats

    def sampling(self, max_tokens: int) -> SamplingParameters:
        """Return the parameters for the engine; what is not given takes the engine's default."""
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k if self.top_k and self.top_k > 0 else None,
            "min_p": self.min_p,
            "seed": self.seed,
            "ignore_eos": self.ignore_eos,
            "min_tokens": self.min_tokens,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repetition_penalty": self.repetition_penalty,
        }
        return SamplingParameters(
            max_tokens=max_tokens,
            stop_token_ids=frozenset(self.stop_token_ids or ()),
            **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
        )


class CompletionRequest(GenerationFields):
    """Body of `POST /v1/completions`."""

    prompt: str | list[int] | list[str] | list[list[int]]

    @property
    def output_limit(self) -> int | None:
        """OpenAI's default for this endpoint is 16 tokens."""
        return 16 if self.max_tokens is None else self.max_tokens


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


class ChatCompletionRequest(GenerationFields):
    """Body of `POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @property
    def output_limit(self) -> int | None:
        """`max_completion_tokens` is the newer name and wins."""
        return self.max_completion_tokens or self.max_tokens


class TokenizeRequest(RequestModel):
    """Body of `POST /tokenize`: a prompt or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise _refused("prompt", "give either prompt or messages")
        return self


class DetokenizeRequest(RequestModel):
    """Body of `POST /detokenize`."""

    model: str | None = None
    tokens: list[int]


def _refused(name: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"name": name, "message": message})


def _same(value: object, neutral: object) -> bool:
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
