"""One request's text: tokens from the engine become text, and stop strings end it."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from llm_engine.engine.messages import GenerationRequest
from llm_engine.server.answers import AnswerReason
from llm_engine.server.backend import Tokenizer
from llm_engine.server.errors import ApiError
from llm_engine.server.stop_strings import StopStrings
from llm_engine.server.streams import Streams


@dataclass(frozen=True)
class Piece:
    """Text that is certain, with the tokens produced until then.

    finish_reason  set on the last piece, and there always
    """

    text: str
    output_tokens: int
    finish_reason: AnswerReason | None


async def generate(
    streams: Streams, tokenizer: Tokenizer, request: GenerationRequest, stops: Sequence[str]
) -> AsyncGenerator[Piece, None]:
    """Yield the text of a request as it becomes certain.

    Closing the iterator early, or cancelling whoever waits for it, aborts the request. Raises
    `ApiError` when the engine fails or the server ends the request.
    """
    detokenizer = tokenizer.detokenizer()
    searcher = StopStrings(stops)
    with streams.open(request) as stream:
        while True:
            delivery = await stream.next()
            if delivery.finish_reason == "error":
                raise ApiError(500, "the engine failed on this request; its log says why")
            if delivery.finish_reason == "abort":
                message = "the server is shutting down and ended this request before it was done"
                raise ApiError(503, message, code="aborted", retry_after_s=1)
            text = searcher.push(detokenizer.add(delivery.token_ids))
            if delivery.finish_reason is not None and not searcher.found:
                text += searcher.push(detokenizer.finish())
            if searcher.found:
                stream.stop()
                yield Piece(text, stream.output_tokens, "stop")
                return
            if delivery.finish_reason is not None:
                reason: AnswerReason = "stop" if delivery.finish_reason == "stop" else "length"
                yield Piece(text + searcher.flush(), stream.output_tokens, reason)
                return
            if text:
                yield Piece(text, stream.output_tokens, None)


async def collect(pieces: AsyncGenerator[Piece, None]) -> Piece:
    """Return the whole text as one piece."""
    texts: list[str] = []
    async for piece in pieces:
        texts.append(piece.text)
        if piece.finish_reason is not None:
            return Piece("".join(texts), piece.output_tokens, piece.finish_reason)
    raise AssertionError("generate() ends with a finish reason")
