"""How long a step of one model on one kind of hardware takes: the law of `serve --simulate`."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llm_engine.contract.arguments import BLOCK_TOKENS
from llm_engine.contract.shape import ModelShape


class Failures(BaseModel):
    """What goes wrong by chance; each is a probability, 0-1.

    The first three are drawn at every step, the last once per start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_error: float = Field(default=0.0, ge=0, le=1, description="A step fails.")
    crash: float = Field(default=0.0, ge=0, le=1, description="The process is killed.")
    hang: float = Field(default=0.0, ge=0, le=1, description="The step never ends.")
    start_error: float = Field(default=0.0, ge=0, le=1, description="The start fails.")


class LatencyProfile(BaseModel):
    """A replica that exists only as arithmetic.

    A step takes `step_s + prefill_token_s * prompt tokens + decode_request_s * requests that
    decode + context_token_s * tokens attended to`, spread by `jitter`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, description="Name that requests use.", examples=["llama-8b"])
    step_s: float = Field(ge=0, description="Seconds of any step: weights read once.")
    prefill_token_s: float = Field(default=0.0, ge=0, description="Seconds per prompt token.")
    decode_request_s: float = Field(default=0.0, ge=0, description="Seconds per decoding request.")
    context_token_s: float = Field(
        default=0.0, ge=0, description="Seconds per token of context that a request reads."
    )
    jitter: float = Field(
        default=0.0, ge=0, lt=1, description="A step takes 1 ± this share of its time."
    )
    start_s: float = Field(default=0.0, ge=0, description="Seconds that loading takes.")
    slow_start_s: float = Field(default=0.0, ge=0, description="Most seconds added by chance.")
    blocks: int = Field(gt=0, description="Blocks of the KV cache.")
    block_tokens: int = Field(default=BLOCK_TOKENS, gt=0, description="Tokens of one block.")
    max_context_tokens: int = Field(gt=1, description="Longest prompt plus output.")
    step_tokens: int = Field(default=2048, gt=1, description="Tokens computed in one step.")
    step_requests: int = Field(default=256, gt=0, description="Requests that run at once.")
    answer_tokens: int = Field(
        default=200, gt=0, description="Output tokens after which a text ends of itself."
    )
    tokenizer: str | None = Field(
        default=None,
        description="Model whose tokenizer and chat template to use; none: one token a byte.",
        examples=["/models/llama-3.1-8b"],
    )
    seed: int | None = Field(default=None, description="Makes jitter and failures repeatable.")
    failures: Failures = Failures()
    shape: ModelShape | None = Field(
        default=None, description="Shape of the model, for bytes/s and FLOP/s; none: not reported."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.step_tokens <= self.step_requests:
            raise ValueError(
                f"step_tokens is {self.step_tokens}; it must exceed step_requests "
                f"({self.step_requests})"
            )
        if self.blocks * self.block_tokens < self.max_context_tokens:
            raise ValueError(
                f"{self.blocks} blocks of {self.block_tokens} tokens cannot hold one request of "
                f"max_context_tokens ({self.max_context_tokens}); give more blocks"
            )
        return self

    def step_seconds(
        self, prefill_tokens: int, decode_requests: int, context_tokens: int, spread: float
    ) -> float:
        """Return what a step takes.

        context_tokens  tokens attended to, summed over the step's requests
        spread          where in the range of the jitter this step lies, -1 to 1
        """
        mean_s = (
            self.step_s
            + self.prefill_token_s * prefill_tokens
            + self.decode_request_s * decode_requests
            + self.context_token_s * context_tokens
        )
        return mean_s * (1 + self.jitter * spread)

    def with_context(self, max_context_tokens: int) -> "LatencyProfile":
        """Return the profile with another longest context; raises ValueError if it cannot be."""
        return LatencyProfile.model_validate(
            self.model_dump() | {"max_context_tokens": max_context_tokens}
        )
