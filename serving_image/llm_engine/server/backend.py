"""What the server needs of an engine, and no more.

The server is written against this: the engine runs in a process of its own (`EngineProcess`), or,
where there is next to nothing to compute, on a thread of the server's (`Engine`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from llm_engine.contract.shape import ModelShape
from llm_engine.engine.messages import EngineStats, GenerationRequest, StepRecord, TokenEvent


class Detokenizer(Protocol):
    """Turns tokens into text as they come; never gives half a character."""

    def add(self, tokens: Sequence[int]) -> str:
        """Return the text that is certain now."""

    def finish(self) -> str:
        """Return what was held back; the text has ended."""


class Tokenizer(Protocol):
    """Text to tokens and back."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the tokens of a raw prompt; special tokens written in it are plain text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""

    def token_bytes(self, token: int) -> bytes:
        """Return what one token adds to a text; it may be a part of a character."""

    def detokenizer(self) -> Detokenizer:
        """Return a fresh incremental detokenizer."""

    @property
    def chat_template(self) -> str | None:
        """The source of the model's chat template; it tells how the model writes calls."""

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], **options: Any
    ) -> list[int]:
        """Return the tokens of a conversation, up to where the assistant speaks.

        options  names that the template reads, such as `tools`

        Raises TemplateRejected.
        """


class Backend(Protocol):
    """An engine that is loaded and runs its steps elsewhere.

    `submit`, `abort` and `stats` are called on the event loop and return at once.

    on_step     told of every step that did work, from any thread
    on_failure  told once, in words and from any thread, when the engine can serve no more
    """

    on_step: Callable[[StepRecord], None] | None
    on_failure: Callable[[str], None] | None

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""

    @property
    def shape(self) -> ModelShape:
        """The model's shape; its vocabulary bounds the token ids."""

    @property
    def dtype(self) -> str:
        """What the KV cache keeps."""

    @property
    def max_context_tokens(self) -> int:
        """Longest prompt plus output of one request."""

    @property
    def healthy(self) -> bool:
        """False once the engine can serve no more."""

    def start(self) -> None:
        """Begin to run steps."""

    def stop(self) -> None:
        """End the engine; open requests end as aborted. Blocks until it is over."""

    def submit(self, request: GenerationRequest, on_event: Callable[[TokenEvent], None]) -> None:
        """Queue a request; `on_event` is called from any thread.

        Raises EngineStopped when nothing runs any more.
        """

    def abort(self, request_id: str) -> None:
        """End a request before the next step and free its blocks; an unknown one is fine."""

    def stats(self) -> EngineStats:
        """Return what the engine holds right now."""
