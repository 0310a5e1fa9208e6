"""One request's text: tokens from the engine become text, and stop strings end it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from llm_engine.engine.messages import FinishReason, GenerationRequest
from llm_engine.server.answers import AnswerReason
from llm_engine.server.backend import Tokenizer
from llm_engine.server.errors import ApiError
from llm_engine.server.logprobs import LogprobQueue, WordLogprob
from llm_engine.server.stop_strings import StopStrings
from llm_engine.server.streams import Delivery, Streams


@dataclass(frozen=True)
class ToolCall:
    """A function that the model wants to have called; `index` counts those of one message."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Piece:
    """Text that is certain, with the tokens produced until then.

    finish_reason  set on the last piece, and there always
    cached_tokens  how many of the prompt's tokens the prefix cache held
    logprobs       of the tokens that begin in this text, where the request asks for them
    calls          functions to call, taken out of the text
    """

    text: str
    output_tokens: int
    finish_reason: AnswerReason | None
    cached_tokens: int = 0
    logprobs: tuple[WordLogprob, ...] = ()
    calls: tuple[ToolCall, ...] = ()


async def generate(
    streams: Streams,
    tokenizer: Tokenizer,
    request: GenerationRequest,
    stops: Sequence[str],
    echo: bool = False,
) -> AsyncGenerator[Piece, None]:
    """Yield the text of a request as it becomes certain.

    echo  begin with the text of the prompt

    Closing the iterator early, or cancelling whoever waits for it, aborts the request. Raises
    `ApiError` when the engine fails or the server ends the request.
    """
    text = _Text(tokenizer, stops, request, echo)
    with streams.open(request) as stream:
        while True:
            delivery = await stream.next()
            _raise_failure(delivery.finish_reason)
            new = text.add(delivery)
            if text.stopped:
                stream.stop()
            reason = _answer_reason(delivery.finish_reason, text.stopped)
            if new or reason is not None:
                logprobs = text.logprobs(all_are_shown=reason is not None and not text.stopped)
                yield Piece(new, stream.output_tokens, reason, stream.cached_tokens, logprobs)
            if reason is not None:
                return


class _Text:
    """The text of one answer as it grows.

    echo  whether to begin with the prompt, in which no stop string is looked for
    """

    def __init__(
        self, tokenizer: Tokenizer, stops: Sequence[str], request: GenerationRequest, echo: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._to_echo = request.prompt_tokens if echo else ()
        self._with_logprobs = request.sampling.top_logprobs is not None
        self._detokenizer = tokenizer.detokenizer()
        self._searcher = StopStrings(stops)
        self._logprobs = LogprobQueue(tokenizer)
        self._shown_characters = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self._searcher.found

    def add(self, delivery: Delivery) -> str:
        """Return what is certain now, all of it once the engine has finished."""
        text = self._echo(delivery)
        self._logprobs.add(delivery.logprobs)
        text += self._searcher.push(self._detokenizer.add(delivery.token_ids))
        if delivery.finish_reason is not None:
            text += self._searcher.push(self._detokenizer.finish())
            text += self._searcher.flush()
        self._shown_characters += len(text)
        return text

    def _echo(self, delivery: Delivery) -> str:
        tokens, self._to_echo = self._to_echo, ()
        if not tokens:
            return ""
        if self._with_logprobs:
            self._logprobs.add_prompt(tokens, delivery.prompt_logprobs)
        return self._tokenizer.decode(tokens)

    def logprobs(self, *, all_are_shown: bool) -> tuple[WordLogprob, ...]:
        """Return those that go with the text returned last."""
        shown = self._logprobs
        return shown.rest() if all_are_shown else shown.due(self._shown_characters)


def _raise_failure(reason: FinishReason | None) -> None:
    if reason == "error":
        raise ApiError(500, "the engine failed on this request; its log says why")
    if reason == "abort":
        message = (
            "the server ended this request before it was done: it shuts down, or the client left "
            "too much unread"
        )
        raise ApiError(503, message, code="aborted", retry_after_s=1)


def _answer_reason(reason: FinishReason | None, stopped: bool) -> AnswerReason | None:
    if stopped or reason == "stop":
        return "stop"
    return None if reason is None else "length"


async def collect(pieces: AsyncGenerator[Piece, None]) -> Piece:
    """Return the whole text as one piece."""
    texts: list[str] = []
    logprobs: list[WordLogprob] = []
    calls: list[ToolCall] = []
    async with aclosing(pieces):
        async for piece in pieces:
            texts.append(piece.text)
            logprobs += piece.logprobs
            calls += piece.calls
            if piece.finish_reason is not None:
                text = "".join(texts)
                return replace(piece, text=text, logprobs=tuple(logprobs), calls=tuple(calls))
    raise AssertionError("generate() ends with a finish reason")


async def merge(
    texts: Sequence[AsyncGenerator[Piece, None]],
) -> AsyncGenerator[tuple[int, Piece], None]:
    """Yield the pieces of several texts as they come, each with the index of its text.

    Closing it early closes all texts; a text that fails ends the others.
    """
    if len(texts) == 1:  # as nearly always, and a task for each piece would be felt
        async with aclosing(texts[0]) as pieces:
            async for piece in pieces:
                yield 0, piece
        return
    coming = {asyncio.ensure_future(anext(text)): index for index, text in enumerate(texts)}
    try:
        while coming:
            done, _ = await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: coming[task]):
                index, piece = coming.pop(task), task.result()
                yield index, piece
                if piece.finish_reason is None:
                    coming[asyncio.ensure_future(anext(texts[index]))] = index
    finally:
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)
        for text in texts:
            await text.aclose()
