"""One linear of Llama-3.1-8B's size in every layout: microseconds, and bytes per second."""

from collections.abc import Iterator

import torch

from benchmarks.gpu.layouts import QUANTIZERS
from benchmarks.gpu.sections import Row, Setting
from benchmarks.gpu.timing import seconds_of
from llm_engine.quantization.linear import make_linear

GATE_UP = (28_672, 4096)
ROWS = (1, 16, 64, 256, 2048)


def measure(setting: Setting) -> Iterator[Row]:
    """Yield each layout at each count of rows."""
    out_features, in_features = (96, 64) if setting.quick else GATE_UP
    weight = torch.randn(out_features, in_features, device=setting.device).bfloat16() * 0.02
    for rows in ROWS[:2] if setting.quick else ROWS:
        x = torch.randn(rows, in_features, device=setting.device).bfloat16()
        for quantization, quantize in QUANTIZERS.items():
            linear = make_linear(quantize(weight), quantization)
            seconds = seconds_of(lambda: linear(x), setting.device, repeat_ms=50)  # noqa: B023
            moved = linear.weight_bytes + 2 * rows * (in_features + out_features)
            yield {
                "quantization": quantization.value,
                "rows": rows,
                "microseconds": seconds * 1e6,
                "of_copy_bandwidth": setting.share_of_copy(moved, seconds),
                "of_bf16_matmul": setting.share_of_bf16(
                    2 * rows * out_features * in_features, seconds
                ),
            }
