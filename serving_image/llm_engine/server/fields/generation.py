"""The fields that both ways of asking for text have in common.

A field that would change the answer and is not supported is refused, never ignored.
"""

from typing import Any, Final, Self

from pydantic import Field, model_validator

from llm_engine.sampling.parameters import SamplingParameters
from llm_engine.server.fields.model import RequestModel, refused, without_unsupported
from llm_engine.server.fields.structured import StructuredFields

MOST_CHOICES: Final = 128
MOST_TOP_LOGPROBS: Final = 20
MOST_BIASES: Final = 1024
MOST_STOPS: Final = 16
LONGEST_STOP: Final = 1024
MOST_PRIORITY: Final = 100


class StreamOptions(RequestModel):
    """What a stream carries besides text."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class GenerationFields(StructuredFields):
    """What is generated, how its tokens are chosen, and in which form it is sent."""

    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1, le=MOST_CHOICES)
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
    logit_bias: dict[str, float] | None = Field(default=None, max_length=MOST_BIASES)
    # The lower, the more urgent, as vLLM has it.
    priority: int | None = Field(default=None, ge=-MOST_PRIORITY, le=MOST_PRIORITY)
    cache_salt: str | None = Field(default=None, min_length=1, max_length=256)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        return without_unsupported(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise refused("stream_options", "stream_options needs stream to be true")
        if any(not stop or len(stop) > LONGEST_STOP for stop in self.stops):
            raise refused("stop", f"stop takes strings of 1 to {LONGEST_STOP} characters")
        if len(self.stops) > MOST_STOPS:
            raise refused("stop", f"stop takes at most {MOST_STOPS}, not {len(self.stops)}")
        limit = self.output_limit
        if limit is not None and self.min_tokens is not None and self.min_tokens > limit:
            raise refused(
                "min_tokens", f"min_tokens ({self.min_tokens}) exceeds max_tokens ({limit})"
            )
        if self.form is not None and self.min_tokens:
            raise refused("min_tokens", f"min_tokens cannot go together with {self.form.field}")
        return self

    @model_validator(mode="after")
    def _check_biases(self) -> Self:
        for token, value in (self.logit_bias or {}).items():
            if not (token.isascii() and token.isdecimal() and len(token) < 10):
                raise refused("logit_bias", f"logit_bias takes token ids, not {token[:40]!r}")
            if not -100 <= value <= 100:
                raise refused("logit_bias", f"logit_bias is {value} for {token}; allow -100 to 100")
        return self

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def choices(self) -> int:
        """How many texts to generate for each prompt."""
        return self.n or 1

    @property
    def output_limit(self) -> int | None:
        """Most tokens that the caller wants; None: as many as the context holds."""
        return self.max_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        """How many alternatives to report with each token; None: no log-probabilities at all."""
        return None

    @property
    def wanted_prompt_logprobs(self) -> int | None:
        """The same for the tokens of the prompt."""
        return None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def continuous_usage(self) -> bool:
        """Whether every event of a stream carries its usage so far."""
        return self.stream_options is not None and self.stream_options.continuous_usage_stats

    @property
    def biases(self) -> tuple[tuple[int, float], ...]:
        """Pairs of a token and what is added to its logit."""
        return tuple((int(token), value) for token, value in (self.logit_bias or {}).items())

    def sampling(self, max_tokens: int, choice: int, grammar: str | None) -> SamplingParameters:
        """Return the parameters for the engine; what is not given takes the engine's default.

        choice   which of the n texts: each has a seed of its own, the first one the caller's
        grammar  what the text must follow
        """
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k if self.top_k and self.top_k > 0 else None,
            "min_p": self.min_p,
            "seed": None if self.seed is None else self.seed + choice,
            "ignore_eos": self.ignore_eos,
            "min_tokens": self.min_tokens,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repetition_penalty": self.repetition_penalty,
            "top_logprobs": self.wanted_logprobs,
            "prompt_logprobs": self.wanted_prompt_logprobs,
            "grammar": grammar,
        }
        return SamplingParameters(
            max_tokens=max_tokens,
            stop_token_ids=frozenset(self.stop_token_ids or ()),
            logit_bias=self.biases,
            **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
        )
