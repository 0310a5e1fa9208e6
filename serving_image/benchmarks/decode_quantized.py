"""Decode speed of every quantization on this CPU, in turns, so that all see the same machine.

    python serving_image/benchmarks/decode_quantized.py [--output decode.json]

A step computes one token of each request at a context of 128; the model is SmolLM2-135M. Each
figure is the median over rounds in which every quantization, and transformers with its own cache,
takes one step.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.smollm2 import published_model, transformers_model
from llm_engine.attention.backend import AttentionSettings
from llm_engine.attention.batch import GroupTables, StepBatch
from llm_engine.attention.cache import KVCache
from llm_engine.attention.paged import PagedAttention
from llm_engine.contract.quantization import Quantization
from llm_engine.model.assembly import load_decoder
from llm_engine.model.decoder import Decoder
from llm_engine.weights.checkpoint import open_checkpoint

BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)
CONTEXT_TOKENS: Final = 128
BLOCK_TOKENS: Final = 16
RIVAL: Final = "transformers"
DTYPES: Final = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def main() -> None:
    """Print tokens/s for each batch and quantization."""
    parser = argparse.ArgumentParser(description="Decode speed of every quantization on a CPU")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="[%(default)s]")
    parser.add_argument("--rounds", type=int, default=30, help="steps of each [%(default)s]")
    parser.add_argument("--threads", type=int, default=1, help="[%(default)s]")
    parser.add_argument("--output", type=Path, help="write the table as JSON to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    checkpoint = open_checkpoint(published_model())
    cpu, dtype = torch.device("cpu"), DTYPES[options.dtype]
    decoders = {
        kept: load_decoder(checkpoint, kept, dtype, cpu, CONTEXT_TOKENS) for kept in Quantization
    }
    rival = transformers_model(published_model()).to(dtype)
    print("batch  " + "".join(f"{name:>16}" for name in (*decoders, RIVAL)))
    table = {}
    for batch in BATCHES:
        steps: dict[str, Callable[[], float]] = {
            kept.value: partial(_step_s, decoder, batch) for kept, decoder in decoders.items()
        }
        steps[RIVAL] = _rival_step(rival, batch)
        speeds = _tokens_per_s(steps, batch, options.rounds)
        table[batch] = speeds
        plain = speeds[Quantization.NONE.value]
        cells = (f"{speed:9.1f} ({speed / plain:.2f})" for speed in speeds.values())
        print(f"{batch:<7}" + "".join(f"{cell:>16}" for cell in cells), flush=True)
    if options.output:
        options.output.write_text(json.dumps({"tokens_per_s": table, **_where(options.dtype)}))


@torch.inference_mode()
def _tokens_per_s(
    steps: dict[str, Callable[[], float]], batch: int, rounds: int
) -> dict[str, float]:
    """Return tokens/s of each, from the median of the seconds that its steps took in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(step())
    return {name: batch / statistics.median(times) for name, times in seconds.items()}


@torch.inference_mode()
def _rival_step(model: Any, batch: int) -> Callable[[], float]:
    """Return a step of transformers over a cache that holds all but the last token."""
    from transformers import DynamicCache

    past = DynamicCache(config=model.config)
    text = torch.arange(100, 100 + CONTEXT_TOKENS).repeat(batch, 1)
    model(text[:, :-1], past_key_values=past, logits_to_keep=1)

    def step_s() -> float:
        began_s = time.perf_counter()
        model(text[:, -1:], past_key_values=past)
        took_s = time.perf_counter() - began_s
        past.crop(-1)
        return took_s

    return step_s


def _step_s(decoder: Decoder, batch: int) -> float:
    shape = decoder.settings.shape
    per_request = CONTEXT_TOKENS // BLOCK_TOKENS
    cache = KVCache.allocate(
        shape, batch * per_request, BLOCK_TOKENS, decoder.dtype, decoder.device
    )
    attention = PagedAttention(cache, AttentionSettings(shape.query_heads, shape.head_dim**-0.5))
    blocks = tuple(range(per_request * i, per_request * (i + 1)) for i in range(batch))
    step = StepBatch(
        query_starts=tuple(range(batch + 1)),
        context_tokens=(CONTEXT_TOKENS,) * batch,
        groups=(GroupTables(None, (0,) * batch, blocks),),
        block_tokens=BLOCK_TOKENS,
    )
    rows = torch.arange(batch)
    began_s = time.perf_counter()
    decoder.logits(
        rows + 100, torch.full((batch,), CONTEXT_TOKENS - 1), rows, attention, attention.plan(step)
    )
    return time.perf_counter() - began_s


def _where(dtype: str) -> dict[str, object]:
    return {
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "context_tokens": CONTEXT_TOKENS,
    }


if __name__ == "__main__":
    main()
