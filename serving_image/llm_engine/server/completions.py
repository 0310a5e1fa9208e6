"""`/v1/completions` and `/v1/chat/completions`: check, generate, answer whole or as a stream."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

from fastapi import Request, Response

from llm_engine.engine.messages import GenerationRequest
from llm_engine.server.access_log import note
from llm_engine.server.answers import Answer, Usage
from llm_engine.server.body import read_fields
from llm_engine.server.disconnect import ClientGone, unless_gone
from llm_engine.server.event_stream import EventStream
from llm_engine.server.fields.generation import GenerationFields
from llm_engine.server.fields.requests import ChatCompletionRequest, CompletionRequest
from llm_engine.server.forms import ChatForm, CompletionForm, Form
from llm_engine.server.generation import Piece, collect, generate, merge
from llm_engine.server.prompts import chat_tokens, completion_prompts, engine_requests
from llm_engine.server.serving import Serving


async def complete(serving: Serving, request: Request) -> Response:
    """Answer `POST /v1/completions`."""
    serving.check_ready()
    fields = await read_fields(request, CompletionRequest)
    serving.check_model(fields.model)
    await _check_form(serving, fields)
    prompts = await completion_prompts(serving, fields.prompt)
    asked = [one for p in prompts for one in engine_requests(serving, fields, p, "prompt")]
    prompt_tokens = sum(map(len, prompts))
    form = CompletionForm(*_heading(serving, "cmpl", fields))
    return await _answer(serving, request, fields, asked, prompt_tokens, form)


async def chat(serving: Serving, request: Request) -> Response:
    """Answer `POST /v1/chat/completions`."""
    serving.check_ready()
    fields = await read_fields(request, ChatCompletionRequest)
    serving.check_model(fields.model)
    await _check_form(serving, fields)
    tokens = await chat_tokens(serving, fields.messages)
    asked = engine_requests(serving, fields, tokens, "messages")
    form = ChatForm(*_heading(serving, "chatcmpl", fields))
    return await _answer(serving, request, fields, asked, len(tokens), form)


async def _check_form(serving: Serving, fields: GenerationFields) -> None:
    if fields.form is not None:
        await serving.grammars.check(fields.form.grammar, fields.form.field)


def _heading(serving: Serving, kind: str, fields: GenerationFields) -> tuple[str, int, str, bool]:
    name = f"{kind}-{uuid.uuid4().hex}"
    return name, int(time.time()), serving.served_name, fields.wanted_logprobs is not None


async def _answer(
    serving: Serving,
    request: Request,
    fields: GenerationFields,
    asked: Sequence[GenerationRequest],
    prompt_tokens: int,
    form: Form,
) -> Response:
    """Answer with one text for each request asked of the engine.

    prompt_tokens  of all prompts; each counts once, however many texts continue it
    """
    serving.streams.check_room(len(asked))
    note(request.scope, stream=bool(fields.stream), prompt_tokens=prompt_tokens)
    tokenizer = serving.backend.tokenizer
    texts = [generate(serving.streams, tokenizer, one, fields.stops) for one in asked]
    if fields.stream:
        return EventStream(_events(request, fields, texts, prompt_tokens, form))
    try:
        pieces = await unless_gone(request.receive, _collect_all(texts))
    except ClientGone:
        return Response(status_code=499)  # nobody reads it
    usage = _usage(prompt_tokens, pieces)
    _note_end(request, pieces[0], usage)
    answer = form.whole(pieces, usage)
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
    texts: Sequence[AsyncGenerator[Piece, None]],
    prompt_tokens: int,
    form: Form,
) -> AsyncGenerator[Answer, None]:
    latest: dict[int, Piece] = {}
    async with aclosing(merge(texts)) as pieces:
        async for index, piece in pieces:
            is_first = index not in latest
            latest[index] = piece
            usage = _usage(prompt_tokens, latest.values())
            yield form.event(index, piece, is_first, usage if fields.continuous_usage else None)
    _note_end(request, piece, usage)
    if fields.include_usage:
        yield form.closing(usage)


def _usage(prompt_tokens: int, latest: Iterable[Piece]) -> Usage:
    """Return what these texts have cost; several of one prompt may all have found it cached."""
    output_tokens = sum(piece.output_tokens for piece in latest)
    cached_tokens = min(prompt_tokens, sum(piece.cached_tokens for piece in latest))
    return Usage.of(prompt_tokens, output_tokens, cached_tokens)


def _note_end(request: Request, piece: Piece, usage: Usage) -> None:
    output_tokens = usage.completion_tokens
    note(request.scope, output_tokens=output_tokens, finish_reason=piece.finish_reason)
