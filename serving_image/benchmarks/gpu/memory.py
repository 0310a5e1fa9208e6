"""The memory plan against what the card says: weights, keys and values, the largest step."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import torch

from benchmarks.gpu.random_model import random_decoder
from benchmarks.gpu.runners import BLOCK_TOKENS, GREEDY, make_requests, make_runner
from benchmarks.gpu.sections import Row, Setting, Skipped
from llm_engine.contract.arguments import AttentionName
from llm_engine.contract.memory_plan import (
    FRAMEWORK_BYTES,
    LARGEST_STEPS,
    MemoryRequest,
    plan_memory,
)
from llm_engine.contract.quantization import Quantization
from llm_engine.engine.runner import Runner
from llm_engine.model.decoder import Decoder
from llm_engine.sampling.choice import Choice

CONTEXT_TOKENS = 2048
KV_CACHE_BYTES = 8 << 30


def measure(setting: Setting) -> Iterator[Row]:
    """Yield predicted and measured bytes of the 0.6B shape in each quantization."""
    if setting.device == "cpu":
        raise Skipped("a CPU's memory is measured by benchmarks of its own")
    yield _context()
    for quantization in Quantization:
        yield from _of(setting, quantization)
        gc.collect()
        torch.cuda.empty_cache()


def _context() -> Row:
    """Return what the process takes beside torch's tensors, on a card that nobody else uses."""
    free, total = torch.cuda.mem_get_info()
    taken = total - free - torch.cuda.memory_reserved()
    return _row(Quantization.NONE, "context", FRAMEWORK_BYTES["cuda"], taken)


def _of(setting: Setting, quantization: Quantization) -> Iterator[Row]:
    device = torch.device(setting.device)
    torch.empty(1, device=device)  # the context
    before = torch.cuda.memory_allocated()
    decoder = random_decoder("0.6B", quantization, device, CONTEXT_TOKENS)
    gc.collect()
    weights = torch.cuda.memory_allocated() - before
    step = LARGEST_STEPS["cuda"]
    plan = plan_memory(
        decoder.settings.shape,
        MemoryRequest(
            quantization=quantization,
            device="cuda",
            dtype_bytes=2,
            context_tokens=CONTEXT_TOKENS,
            free_bytes=torch.cuda.mem_get_info()[0],
            step=step,
            kv_cache_bytes=KV_CACHE_BYTES,
            gathers=False,
        ),
    )
    predicted = plan.weight_bytes + plan.rope_bytes
    yield _row(quantization, "weights", predicted, weights)
    runner = make_runner(decoder, plan.blocks, AttentionName.AUTO)
    held = torch.cuda.memory_allocated() - before
    yield _row(quantization, "keys and values", plan.kv_cache_bytes, held - weights)
    torch.cuda.reset_peak_memory_stats()
    _largest_steps(runner, decoder, step.tokens, step.requests)
    peak = torch.cuda.max_memory_allocated() - before
    yield _row(quantization, "largest step", plan.step_bytes, peak - held)
    yield _row(quantization, "all", predicted + plan.kv_cache_bytes + plan.step_bytes, peak)


def _largest_steps(runner: Runner, decoder: Decoder, tokens: int, requests: int) -> None:
    """Compute the widest prompt step, and draw for as many requests as there may be."""
    vocabulary = decoder.settings.shape.vocabulary
    drawn = replace(GREEDY, temperature=1.0, top_logprobs=1)
    for count, each in ((1, tokens - BLOCK_TOKENS), (requests, tokens // requests)):
        made = make_requests(count, each, BLOCK_TOKENS, vocabulary)
        choices = [Choice(drawn, r.tokens, each, Random(1), frozenset()) for r in made]
        runner.run(dict.fromkeys(made, each), choices)


def _row(quantization: Quantization, part: str, predicted: int, measured: int) -> Row:
    off = predicted / measured - 1 if measured else 0.0
    row: Row = {"quantization": quantization.value, "part": part}
    row |= {"predicted_bytes": predicted, "measured_bytes": measured, "off": round(off, 4)}
    return row | ({"ok": abs(off) <= 0.03} if part == "all" else {})
