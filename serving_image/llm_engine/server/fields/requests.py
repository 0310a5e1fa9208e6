"""The bodies of the requests, one model per route."""

from collections.abc import Sequence
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from llm_engine.server.fields.generation import MOST_TOP_LOGPROBS, GenerationFields
from llm_engine.server.fields.messages import Message
from llm_engine.server.fields.model import RequestModel, refused
from llm_engine.server.fields.tools import Tool, ToolChoice, check_tools

MOST_TOOLS: Final = 128
MOST_TEXTS: Final = 2048
"""Of one request, counted before any prompt is looked at."""


class CompletionRequest(GenerationFields):
    """Body of `POST /v1/completions`."""

    prompt: str | list[int] | list[str] | list[list[int]]
    logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP_LOGPROBS)
    best_of: int | None = Field(default=None, ge=1)
    echo: bool | None = None

    @model_validator(mode="after")
    def _check_best_of(self) -> Self:
        if self.best_of not in (None, self.choices):
            raise refused(
                "best_of", f"best_of ({self.best_of}) must equal n ({self.choices}): all are shown"
            )
        return self

    @property
    def prompts(self) -> Sequence[str | list[int]]:
        """Each prompt, as text or as tokens; a list of numbers is one prompt."""
        prompt = self.prompt
        if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
            return [prompt]
        return prompt  # type: ignore[return-value]  # of one kind, as pydantic has checked

    @model_validator(mode="after")
    def _check_texts(self) -> Self:
        texts = len(self.prompts) * self.choices
        if texts > MOST_TEXTS:
            message = f"prompt and n ask for {texts} texts; at most {MOST_TEXTS} are allowed"
            raise refused("prompt", message)
        return self

    @property
    def output_limit(self) -> int | None:
        """OpenAI's default for this endpoint is 16 tokens."""
        return 16 if self.max_tokens is None else self.max_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        """How many alternatives to report with each token; None: no log-probabilities at all."""
        return self.logprobs

    @property
    def wanted_prompt_logprobs(self) -> int | None:
        """The same for the prompt, which is shown only where it is echoed."""
        return self.logprobs if self.echo else None


class ChatCompletionRequest(GenerationFields):
    """Body of `POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP_LOGPROBS)
    tools: list[Tool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    echo: Literal[False] | None = None

    @model_validator(mode="after")
    def _check_tools(self) -> Self:
        check_tools(self.tools or (), self.tool_choice)
        if self.tools and self.tool_choice != "none" and self.form is not None:
            raise refused(self.form.field, f"{self.form.field} cannot go together with tools")
        return self

    @model_validator(mode="after")
    def _check_logprobs(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise refused("top_logprobs", "top_logprobs needs logprobs to be true")
        return self

    @property
    def output_limit(self) -> int | None:
        """`max_completion_tokens` is the newer name and wins."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        """How many alternatives to report with each token; None: no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


class TokenizeRequest(RequestModel):
    """Body of `POST /tokenize`: a prompt or a conversation.

    add_special_tokens  whether a prompt gets the model's own beginning and end, as when generating
    """

    model: str | None = None
    prompt: str | None = None
    add_special_tokens: bool = True
    messages: list[Message] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise refused("prompt", "give either prompt or messages")
        return self


class DetokenizeRequest(RequestModel):
    """Body of `POST /detokenize`."""

    model: str | None = None
    tokens: list[int]
