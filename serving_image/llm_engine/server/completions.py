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
from llm_engine.server.dress import ChatDress, CompletionDress, Dress
from llm_engine.server.event_stream import EventStream
from llm_engine.server.fields.generation import GenerationFields
from llm_engine.server.fields.requests import ChatCompletionRequest, CompletionRequest
from llm_engine.server.fields.structured import Form
from llm_engine.server.generation import Piece, collect, generate, merge
from llm_engine.server.prompts import chat_tokens, completion_prompts, engine_requests
from llm_engine.server.serving import Serving
from llm_engine.server.tools.tool_use import template_tools, tool_use


async def complete(serving: Serving, request: Request) -> Response:
    """Answer `POST /v1/completions`."""
    serving.check_ready()
    fields = await read_fields(request, CompletionRequest)
    serving.check_model(fields.model)
    await _check_form(serving, fields.form)
    prompts = await completion_prompts(serving, fields.prompts)
    asked = [
        one
        for tokens in prompts
        for one in engine_requests(serving, fields, tokens, "prompt", fields.form)
    ]
    prompt_tokens = sum(map(len, prompts))
    dress = CompletionDress(*_heading(serving, "cmpl", fields))
    texts = _texts(serving, fields, asked, bool(fields.echo))
    return await _answer(request, fields, texts, prompt_tokens, dress)


async def chat(serving: Serving, request: Request) -> Response:
    """Answer `POST /v1/chat/completions`."""
    serving.check_ready()
    fields = await read_fields(request, ChatCompletionRequest)
    serving.check_model(fields.model)
    use = tool_use(fields, serving.backend.tokenizer.chat_template)
    wanted = fields.form if use is None else use.form
    await _check_form(serving, wanted)
    tools = () if use is None else template_tools(fields)
    tokens = await chat_tokens(serving, fields.messages, tools)
    asked = engine_requests(serving, fields, tokens, "messages", wanted)
    texts = _texts(serving, fields, asked)
    if use is not None:
        texts = [use.calls(text) for text in texts]
    dress = ChatDress(*_heading(serving, "chatcmpl", fields))
    return await _answer(request, fields, texts, len(tokens), dress)


async def _check_form(serving: Serving, form: Form | None) -> None:
    if form is not None:
        await serving.grammars.check(form.grammar, form.field)


def _texts(
    serving: Serving,
    fields: GenerationFields,
    asked: Sequence[GenerationRequest],
    echo: bool = False,
) -> list[AsyncGenerator[Piece, None]]:
    """Return a text for each request; nothing is asked of the engine before it is read."""
    serving.streams.check_room(asked)
    tokenizer = serving.backend.tokenizer
    return [generate(serving.streams, tokenizer, one, fields.stops, echo) for one in asked]


def _heading(serving: Serving, kind: str, fields: GenerationFields) -> tuple[str, int, str, bool]:
    name = f"{kind}-{uuid.uuid4().hex}"
    return name, int(time.time()), serving.served_name, fields.wanted_logprobs is not None


async def _answer(
    request: Request,
    fields: GenerationFields,
    texts: Sequence[AsyncGenerator[Piece, None]],
    prompt_tokens: int,
    dress: Dress,
) -> Response:
    """Answer with these texts, whole or as they come.

    prompt_tokens  of all prompts; each counts once, however many texts continue it
    """
    note(request.scope, stream=bool(fields.stream), prompt_tokens=prompt_tokens)
    if fields.stream:
        return EventStream(_events(request, fields, texts, prompt_tokens, dress))
    try:
        pieces = await unless_gone(request.receive, _collect_all(texts))
    except ClientGone:
        return Response(status_code=499)  # nobody reads it
    usage = _usage(prompt_tokens, pieces)
    _note_end(request, pieces[0], usage)
    answer = dress.whole(pieces, usage)
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
    dress: Dress,
) -> AsyncGenerator[Answer, None]:
    latest: dict[int, Piece] = {}
    async with aclosing(merge(texts)) as pieces:
        async for index, piece in pieces:
            is_first = index not in latest
            latest[index] = piece
            usage = _usage(prompt_tokens, latest.values())
            yield dress.event(index, piece, is_first, usage if fields.continuous_usage else None)
    _note_end(request, piece, usage)
    if fields.include_usage:
        yield dress.closing(usage)


def _usage(prompt_tokens: int, latest: Iterable[Piece]) -> Usage:
    """Return what these texts have cost; several of one prompt may all have found it cached."""
    output_tokens = sum(piece.output_tokens for piece in latest)
    cached_tokens = min(prompt_tokens, sum(piece.cached_tokens for piece in latest))
    return Usage.of(prompt_tokens, output_tokens, cached_tokens)


def _note_end(request: Request, piece: Piece, usage: Usage) -> None:
    output_tokens = usage.completion_tokens
    note(request.scope, output_tokens=output_tokens, finish_reason=piece.finish_reason)
