"""From what a caller wrote to tokens that fit the context, or to an error that says why not."""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from llm_engine.engine.messages import GenerationRequest
from llm_engine.server.errors import ApiError
from llm_engine.server.fields.generation import GenerationFields
from llm_engine.server.fields.messages import Message
from llm_engine.server.fields.structured import Form
from llm_engine.server.serving import Serving
from llm_engine.tokenizer.chat_template import TemplateRejected

_INLINE_CHARACTERS: Final = 20_000
"""Longer text is tokenized on a thread: it would hold up every other stream for milliseconds."""

_CHARACTERS_PER_TURN: Final = 100

Result = TypeVar("Result")


async def completion_prompts(
    serving: Serving, prompts: Sequence[str | list[int]]
) -> list[list[int]]:
    """Return the tokens of every prompt of a `/v1/completions` request."""
    if not prompts:
        raise ApiError(400, "prompt is empty; give at least one token", param="prompt")
    for prompt in prompts:
        if not isinstance(prompt, str):
            check_token_ids(serving, prompt, "prompt")
    encode = serving.backend.tokenizer.encode
    characters = sum(len(prompt) for prompt in prompts if isinstance(prompt, str))
    return await _run(
        characters,
        lambda: [encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts],
    )


async def text_tokens(serving: Serving, text: str, add_special_tokens: bool) -> list[int]:
    """Return the tokens of raw text, within the model's own beginning and end if wanted."""
    tokenizer = serving.backend.tokenizer
    return await _run(
        len(text), lambda: tokenizer.encode(text, add_special_tokens=add_special_tokens)
    )


async def chat_tokens(
    serving: Serving, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
) -> list[int]:
    """Return the tokens of a conversation; raises `ApiError` when the template refuses it."""
    turns = [message.turn() for message in messages]
    # A turn costs time even where it says nothing.
    characters = sum(len(turn["content"]) + _CHARACTERS_PER_TURN for turn in turns)
    tokenizer = serving.backend.tokenizer
    options = {"tools": tools} if tools else {}
    try:
        return await _run(characters, lambda: tokenizer.apply_chat_template(turns, **options))
    except TemplateRejected as error:
        raise ApiError(400, str(error), param="messages", code="template_rejected") from None


async def _run(characters: int, work: Callable[[], Result]) -> Result:
    return work() if characters < _INLINE_CHARACTERS else await asyncio.to_thread(work)


def check_token_ids(serving: Serving, token_ids: Sequence[int], param: str) -> None:
    """Raise `ApiError` (400) unless all are tokens of this model."""
    vocabulary = serving.backend.shape.vocabulary
    if not token_ids or (min(token_ids) >= 0 and max(token_ids) < vocabulary):
        return  # quick even for millions
    wrong = next((token for token in token_ids if not 0 <= token < vocabulary), None)
    if wrong is not None:
        message = f"{wrong} is no token of this model: its tokens are 0 to {vocabulary - 1}"
        raise ApiError(400, message, param=param, code="invalid_value")


def engine_requests(
    serving: Serving, fields: GenerationFields, prompt: Sequence[int], param: str, form: Form | None
) -> list[GenerationRequest]:
    """Return a request for the engine for each text wanted; nothing is ever cut to make it fit.

    param  the field that the prompt came from
    form   what the texts must follow
    """
    check_token_ids(serving, fields.stop_token_ids or (), "stop_token_ids")
    check_token_ids(serving, [token for token, _ in fields.biases], "logit_bias")
    if not prompt:
        raise ApiError(400, f"{param} is empty; give at least one token", param=param)
    room = serving.backend.max_context_tokens - len(prompt)
    wanted = fields.output_limit
    if room < 1 or (wanted is not None and wanted > room):
        asked = "" if wanted is None else f" and {wanted} for the output"
        message = (
            f"the context of this model is {serving.backend.max_context_tokens} tokens; the request"
            f" has {len(prompt)} in the prompt{asked}. Shorten the prompt or lower max_tokens"
        )
        raise ApiError(400, message, param=param, code="context_length_exceeded")
    limit = room if wanted is None else wanted
    grammar = None if form is None else form.grammar
    return [
        GenerationRequest(
            request_id=uuid.uuid4().hex,
            prompt_tokens=tuple(prompt),
            sampling=fields.sampling(limit, choice, grammar),
            priority=fields.priority or 0,
            cache_salt=fields.cache_salt or "",
            # What is wanted of a prompt must be computed, even if it was before.
            reads_prefixes=fields.wanted_prompt_logprobs is None,
        )
        for choice in range(fields.choices)
    ]
