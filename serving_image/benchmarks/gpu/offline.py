"""Requests through the whole engine, scheduler included: tokens per second without a server."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

from benchmarks.gpu.runners import BLOCK_TOKENS, GREEDY, make_runner
from benchmarks.gpu.sections import Row, Setting
from llm_engine.contract.arguments import AttentionName
from llm_engine.contract.layer_groups import block_bytes
from llm_engine.contract.memory_plan import LARGEST_STEPS
from llm_engine.engine import Engine, GenerationRequest
from llm_engine.engine.loaded import Loaded
from llm_engine.engine.warm_up import warm_up
from llm_engine.model.decoder import Decoder
from llm_engine.scheduling.plan import Limits
from tests.engine.tiny_llama import Answers

SERVED: Mapping[str, tuple[tuple[int, int | None], ...]] = {
    "0.6B": ((256, None), (32, 128)),
    "8B": (),
    "tiny": ((3, None), (2, 5)),
}
"""Requests of 100 to 1,024 tokens that go through the engine with its scheduler, and the tokens out
of each; None: 100 to 1,024 too. The second are those of rival.py."""


def serve(setting: Setting, decoder: Decoder, count: int, new_tokens: int | None) -> Row:
    """Answer many requests of random lengths through the engine and its scheduler."""
    chance = Random(8)
    shape = decoder.settings.shape
    least, most = (10, 20) if setting.quick else (100, 1024)
    prompts = [
        [chance.randrange(1, shape.vocabulary) for _ in range(chance.randint(least, most))]
        for _ in range(count)
    ]
    outputs = [new_tokens or chance.randint(least, most) for _ in range(count)]
    blocks = sum(
        -(-(len(prompt) + new) // BLOCK_TOKENS) + 1
        for prompt, new in zip(prompts, outputs, strict=True)
    )
    step = LARGEST_STEPS["cuda"]
    loaded = Loaded(
        shape=shape,
        tokenizer=_NoTokenizer(),  # type: ignore[arg-type]  # nothing is decoded
        runner=make_runner(decoder, blocks, AttentionName.AUTO, has_graphs=True),
        limits=Limits(step.tokens, step.requests),
        max_context_tokens=2 * most,
        device=setting.device,
        dtype="bfloat16",
    )
    warm_up(loaded.runner, setting.device != "cpu", 2 * most, step.requests)
    engine = Engine(loaded)
    engine.start()
    try:
        began_s = time.perf_counter()
        tokens = _answer(engine, prompts, outputs)
        seconds = time.perf_counter() - began_s
    finally:
        engine.stop()
    kv_gb = block_bytes(shape, BLOCK_TOKENS, 2) * blocks / 1e9
    return {
        "served_offline": count,
        "prompt_tokens": sum(map(len, prompts)),
        "output_tokens": tokens,
        "output_tokens_per_s": tokens / seconds,
        "seconds": seconds,
        "kv_gb": kv_gb,
    }


def _answer(engine: Engine, prompts: Sequence[Sequence[int]], outputs: Sequence[int]) -> int:
    """Return the count of tokens that the engine generated for all prompts."""
    answers = Answers()
    for number, (prompt, most) in enumerate(zip(prompts, outputs, strict=True)):
        sampling = replace(GREEDY, max_tokens=most)
        request = GenerationRequest(f"{len(prompts)}-{number}", tuple(prompt), sampling)
        engine.submit(request, answers.take)
    answers.wait_for_ends(len(prompts), timeout_s=110.0)
    return sum(map(len, answers.tokens.values()))


class _NoTokenizer:
    eos_tokens: frozenset[int] = frozenset()
