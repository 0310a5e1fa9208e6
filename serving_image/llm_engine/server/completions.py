"""`/v1/completions` and `/v1/chat/completions`: check, generate, answer whole or as a stream."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from fastapi import Request, Response

from llm_engine.engine.messages import GenerationRequest
from llm_engine.server.access_log import note
from llm_engine.server.answers import Answer, Usage
from llm_engine.server.body import read_fields
from llm_engine.server.disconnect import ClientGone, unless_gone
from llm_engine.server.errors import ApiError
from llm_engine.server.event_stream import EventStream
from llm_engine.server.forms import ChatForm, CompletionForm, Form
from llm_engine.server.generation import Piece, collect, generate
from llm_engine.server.prompts import chat_tokens, completion_prompts, engine_request
from llm_engine.server.request_fields import (
    ChatCompletionRequest,
    CompletionRequest,
    GenerationFields,
)
from llm_engine.server.serving import Serving


async def complete(serving: Serving, request: Request) -> Response:
    """Answer `POST /v1/completions`."""
    serving.check_ready()
    fields = await read_fields(request, CompletionRequest)
    serving.check_model(fields.model)
    prompts = await completion_prompts(serving, fields.prompt)
    if fields.stream and len(prompts) > 1:
        raise ApiError(400, "a stream takes one prompt; send a request for each", param="prompt")
    engine_requests = [engine_request(serving, fields, tokens, "prompt") for tokens in prompts]
    form = CompletionForm(f"cmpl-{uuid.uuid4().hex}", int(time.time()), serving.served_name)
    return await _answer(serving, request, fields, engine_requests, form)


async def chat(serving: Serving, request: Request) -> Response:
    """Answer `POST /v1/chat/completions`."""
    serving.check_ready()
    fields = await read_fields(request, ChatCompletionRequest)
    serving.check_model(fields.model)
    tokens = await chat_tokens(serving, fields.messages)
    engine_requests = [engine_request(serving, fields, tokens, "messages")]
    form = ChatForm(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), serving.served_name)
    return await _answer(serving, request, fields, engine_requests, form)


async def _answer(
    serving: Serving,
    request: Request,
    fields: GenerationFields,
    engine_requests: Sequence[GenerationRequest],
    form: Form,
) -> Response:
    serving.streams.check_room(len(engine_requests))
    prompt_tokens = sum(len(one.prompt_tokens) for one in engine_requests)
    note(request.scope, stream=bool(fields.stream), prompt_tokens=prompt_tokens)
    texts = [
        generate(serving.streams, serving.backend.tokenizer, one, fields.stops)
        for one in engine_requests
    ]
    if fields.stream:
        return EventStream(_events(request, fields, texts[0], prompt_tokens, form))
    try:
        pieces = await unless_gone(request.receive, _collect_all(texts))
    except ClientGone:
        return Response(status_code=499)  # nobody reads it
    output_tokens = sum(piece.output_tokens for piece in pieces)
    _note_end(request, pieces[0], output_tokens)
    answer = form.whole(pieces, Usage.of(prompt_tokens, output_tokens))
    return Response(answer.model_dump_json(), media_type="application/json")


async def _collect_all(texts: Sequence[AsyncGenerator[Piece, None]]) -> list[Piece]:
    """Return all texts; when one fails the others are aborted."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(collect(text)) for text in texts]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def _events(
    request: Request,
    fields: GenerationFields,
    text: AsyncGenerator[Piece, None],
    prompt_tokens: int,
    form: Form,
) -> AsyncGenerator[Answer, None]:
    is_first = True
    async with aclosing(text) as pieces:
        async for piece in pieces:
            usage = Usage.of(prompt_tokens, piece.output_tokens)
            yield form.event(piece, is_first, usage if fields.continuous_usage else None)
            is_first = False
    _note_end(request, piece, piece.output_tokens)
    if fields.include_usage:
        yield form.closing(usage)


def _note_end(request: Request, piece: Piece, output_tokens: int) -> None:
    note(request.scope, output_tokens=output_tokens, finish_reason=piece.finish_reason)
