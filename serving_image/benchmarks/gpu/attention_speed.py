"""Attention alone: keys and values read per second, as a share of the copy bandwidth."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from benchmarks.gpu.sections import Row, Setting
from benchmarks.gpu.timing import seconds_of
from llm_engine.attention.backend import AttentionBackend
from llm_engine.attention.batch import GroupTables, StepBatch
from llm_engine.attention.cache import KVCache
from llm_engine.attention.choice import make_attention, why_not
from llm_engine.attention.triton_paged import TritonAttention
from llm_engine.attention.triton_plan import TileShape, tile_shapes
from llm_engine.contract.arguments import AttentionName
from tests.engine.attention_cases import Case, a_cache


@dataclass(frozen=True)
class Load:
    """Requests of equal length with Llama-3.1-8B's heads, each computing `tokens` now."""

    requests: int
    context_tokens: int
    tokens: int = 1
    block_tokens: int = 16
    kv_heads: int = 8
    group: int = 4
    head_dim: int = 128

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values that a step reads, once each."""
        tokens = self.requests * self.context_tokens
        return tokens * 2 * self.kv_heads * self.head_dim * torch.bfloat16.itemsize

    @property
    def operations(self) -> float:
        """Multiplications and additions of both products, of what the causal mask leaves."""
        pairs = self.tokens * (self.context_tokens - (self.tokens - 1) / 2)
        return 4 * self.requests * pairs * self.kv_heads * self.group * self.head_dim


DECODING: tuple[Load, ...] = (
    Load(64, 4096),
    Load(1, 4096),
    Load(1, 32_768),
    Load(8, 8192),
    Load(256, 1024),
)
PREFILLING: tuple[Load, ...] = (Load(1, 4096, 4096), Load(4, 2048, 2048), Load(1, 16_384, 2048))
SWEPT = tuple(
    TileShape(16, keys, warps, stages)
    for keys, warps, stages in product((32, 64, 128), (2, 4, 8), (3, 5))
    if (keys, stages) != (128, 5)
)
SWEPT_WIDE = tuple(
    TileShape(rows, keys, warps, stages)
    for rows, keys, warps, stages in (
        (64, 64, 4, 3), (64, 128, 4, 3), (128, 64, 4, 3), (128, 64, 8, 2), (128, 64, 8, 3),
        (128, 64, 8, 5), (128, 128, 8, 3), (256, 64, 8, 3),
    )
)  # fmt: skip


def measure(setting: Setting) -> Iterator[Row]:
    """Yield the backends beside each other, then the shapes of tiles that Triton may have."""
    decoding, prefilling, swept, wide = DECODING, PREFILLING, SWEPT, SWEPT_WIDE
    if setting.quick:
        decoding, prefilling = (Load(2, 64, kv_heads=2, head_dim=32),), ()
        swept, wide = (), ()
    for load in (*decoding, *prefilling):
        yield from _compared(setting, load)
    yield from _sweep(setting, decoding[0], swept, narrow=True)
    if prefilling:
        yield from _sweep(setting, prefilling[0], wide, narrow=False)
    if swept:
        step = _Step(decoding[0], setting.device)
        for factor in (0.5, 2, 4, 8):
            attention = TritonAttention(step.cache, step.case.settings)
            attention.processors = int(attention.processors * factor)
            plan = attention.plan(step.batch)
            seconds = seconds_of(_attending(attention, step, plan), setting.device)
            splits = plan[0].launches[0].splits
            yield _row(setting, decoding[0], f"triton, {splits} splits", seconds)
        for block_tokens in (32, 64, 128):
            load = Load(64, 4096, block_tokens=block_tokens)
            step = _Step(load, setting.device)
            attention = TritonAttention(step.cache, step.case.settings)
            work = _attending(attention, step, attention.plan(step.batch))
            yield _row(setting, load, "triton", seconds_of(work, setting.device))


def _compared(setting: Setting, load: Load) -> Iterator[Row]:
    step = _Step(load, setting.device)
    for name in (AttentionName.TRITON, AttentionName.XFORMERS, AttentionName.TORCH):
        decodes_only = name is AttentionName.XFORMERS
        if why_not(name, torch.device(setting.device)) or (decodes_only and load.tokens > 1):
            continue
        attention = make_attention(name, step.cache, step.case.settings)
        work = _attending(attention, step, attention.plan(step.batch))
        try:
            seconds = seconds_of(work, setting.device)
        except Exception as error:  # another library's kernel must not end the section
            yield {"attention": name.value, "does_not_run": repr(error)[:200]}
            continue
        yield _row(setting, load, name.value, seconds)
    if load.tokens in (1, load.context_tokens):  # its causal mask knows no past
        seconds = seconds_of(_contiguous(load, setting.device), setting.device)
        yield _row(setting, load, "SDPA of contiguous keys", seconds)


def _sweep(
    setting: Setting, load: Load, shapes: tuple[TileShape, ...], narrow: bool
) -> Iterator[Row]:
    if not shapes:
        return
    step = _Step(load, setting.device)
    for shape in shapes:
        usual = tile_shapes(load.group, load.head_dim, 2)
        pair = (shape, usual[1]) if narrow else (usual[0], shape)
        attention = TritonAttention(step.cache, step.case.settings, pair)
        work = _attending(attention, step, attention.plan(step.batch))
        try:
            seconds = seconds_of(work, setting.device, repeat_ms=40)
        except Exception as error:  # a shape may not fit the card: that is an answer too
            yield {"attention": str(shape), "does_not_run": str(error)[:80]}
            continue
        yield _row(setting, load, str(shape), seconds)


class _Step:
    """A load made real: noise in the cache, blocks in no order."""

    def __init__(self, load: Load, device: str) -> None:
        torch.manual_seed(1)
        self.case = Case(
            (), load.kv_heads, load.group, load.head_dim, load.block_tokens, dtype=torch.bfloat16
        )
        blocks = -(-load.context_tokens // load.block_tokens)
        self.cache: KVCache = a_cache(self.case, load.requests * blocks, torch.device(device))
        self.cache.slots[0].normal_()
        order = torch.randperm(load.requests * blocks).view(load.requests, blocks).tolist()
        self.batch = StepBatch(
            query_starts=tuple(range(0, load.requests * load.tokens + 1, load.tokens)),
            context_tokens=(load.context_tokens,) * load.requests,
            groups=(GroupTables(None, (0,) * load.requests, tuple(order)),),
            block_tokens=load.block_tokens,
        )
        rows = load.requests * load.tokens
        noise = partial(torch.randn, device=device, dtype=torch.bfloat16)
        self.queries: Tensor = noise(rows, load.kv_heads * load.group, load.head_dim)
        self.keys_values: Tensor = noise(rows, 2, load.kv_heads, load.head_dim)


def _attending(attention: AttentionBackend, step: _Step, plan: Any) -> Callable[[], Tensor]:
    return lambda: attention.attend(0, step.queries, step.keys_values, plan)


def _contiguous(load: Load, device: str) -> Callable[[], Tensor]:
    """Return torch's own attention over keys that need no table: what paging may cost."""
    noise = partial(torch.randn, device=device, dtype=torch.bfloat16)
    heads = load.kv_heads * load.group
    queries = noise(load.requests, heads, load.tokens, load.head_dim)
    keys, values = (
        noise(load.requests, load.kv_heads, load.context_tokens, load.head_dim) for _ in range(2)
    )
    causal = load.tokens == load.context_tokens
    return lambda: F.scaled_dot_product_attention(
        queries, keys, values, is_causal=causal, enable_gqa=True
    )


def _row(setting: Setting, load: Load, attention: str, seconds: float) -> Row:
    row: Row = {
        "attention": attention,
        "requests": load.requests,
        "context_tokens": load.context_tokens,
        "tokens": load.tokens,
        "block_tokens": load.block_tokens,
        "microseconds": seconds * 1e6,
    }
    if load.tokens == 1:
        return row | {
            "gb_per_s": load.kv_bytes / seconds / 1e9,
            "of_copy_bandwidth": setting.share_of_copy(load.kv_bytes, seconds),
        }
    return row | {
        "tflop_per_s": load.operations / seconds / 1e12,
        "of_bf16_matmul": setting.share_of_bf16(load.operations, seconds),
    }
