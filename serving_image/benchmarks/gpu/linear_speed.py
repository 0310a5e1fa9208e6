"""Linears of Llama-3.1-8B's sizes in every layout: microseconds, and the share of the ceilings."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.layouts import QUANTIZERS
from benchmarks.gpu.sections import Row, Setting
from benchmarks.gpu.timing import seconds_of
from llm_engine.contract.quantization import Quantization
from llm_engine.quantization.linear import Linear, make_linear
from llm_engine.quantization.triton_linear import Tile, TritonLinear

GATE_UP, OUT = (28_672, 4096), (4096, 4096)
ROWS = (1, 16, 64, 128, 256, 2048)
SWEPT = (
    Tile(16, 32, 4, 4), Tile(16, 64, 4, 3), Tile(16, 64, 4, 5), Tile(16, 64, 2, 4),
    Tile(16, 64, 4, 4, 256), Tile(16, 128, 4, 3), Tile(16, 128, 8, 4), Tile(64, 64, 4, 3),
    Tile(64, 64, 8, 3), Tile(64, 128, 4, 3), Tile(64, 128, 8, 3), Tile(128, 128, 8, 3),
)  # fmt: skip
"""Tiles of the fused product that may be better than those chosen."""


def measure(setting: Setting) -> Iterator[Row]:
    """Yield each layout at each count of rows, then tiles beside each other."""
    for shape in ((96, 64),) if setting.quick else (GATE_UP, OUT):
        weight = torch.randn(shape, device=setting.device).bfloat16() * 0.02
        for quantization, quantize in QUANTIZERS.items():
            linear = make_linear(quantize(weight), quantization)
            for rows in ROWS[:2] if setting.quick else ROWS:
                x = torch.randn(rows, shape[1], device=setting.device).bfloat16()
                seconds = seconds_of(partial(linear, x), setting.device, repeat_ms=40)
                yield _row(setting, quantization.value, linear, x, shape, seconds)
    if not setting.quick:
        yield from _sweep(setting)


def _sweep(setting: Setting) -> Iterator[Row]:
    weight = torch.randn(GATE_UP, device=setting.device).bfloat16() * 0.02
    for quantization in (Quantization.INT8, Quantization.INT4):
        linear = make_linear(QUANTIZERS[quantization](weight), quantization)
        assert isinstance(linear, TritonLinear)
        for tile in SWEPT:
            rows = 1 if tile.rows == 16 else tile.rows
            x = torch.randn(rows, GATE_UP[1], device=setting.device).bfloat16()
            name = f"{quantization} {tile}"
            try:
                seconds = seconds_of(partial(linear.multiply, x, tile), setting.device, 30)
            except Exception as error:  # a tile may not fit the card: that is an answer too
                yield {"layout": name, "does_not_run": str(error)[:80]}
                continue
            yield _row(setting, name, linear, x, GATE_UP, seconds)


def _row(
    setting: Setting, name: str, linear: Linear, x: Tensor, shape: tuple[int, int], seconds: float
) -> Row:
    rows, (outs, inputs) = len(x), shape
    moved = linear.weight_bytes + x.nbytes + rows * outs * x.itemsize
    return {
        "layout": name,
        "shape": list(shape),
        "rows": rows,
        "microseconds": seconds * 1e6,
        "of_copy_bandwidth": setting.share_of_copy(moved, seconds),
        "of_bf16_matmul": setting.share_of_bf16(2 * rows * outs * inputs, seconds),
    }
