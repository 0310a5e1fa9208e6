"""Compile the attention kernels for Hopper, which needs no GPU; print a line for each.

A process of its own: where Triton interprets, it cannot compile.
"""

from collections.abc import Mapping
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from llm_engine.attention.triton_kernels import attend_kernel, merge_kernel, store_kernel
from llm_engine.attention.triton_plan import tile_shapes

HOPPER = GPUTarget("cuda", 90, 32)
MOST_SHARED_BYTES = 227 * 1024
HEADS: Mapping[str, Any] = {"KV_HEADS": 8, "GROUP": 4}
NUMBERS = {"query_stride": "i32", "splits": "i32"}
NUMBERS |= {"scale": "fp32", "cap": "fp32"}
POINTERS = {"tables": "*i32", "tiles": "*i32", "slots": "*i32", "weights": "*fp32"}
POINTERS |= {"parts": "*fp32"}


def compiled(
    kernel: Any, dtype: str, constants: Mapping[str, Any], warps: int = 4, stages: int = 2
) -> Any:
    types = {
        name: NUMBERS.get(name) or POINTERS.get(name, f"*{dtype}")
        for name in kernel.arg_names
        if name not in constants
    }
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if types.get(name, "").startswith("*")
    }
    signature = {**types, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, HOPPER, {"num_warps": warps, "num_stages": stages})


def main() -> None:
    for dtype, itemsize in (("bf16", 2), ("fp32", 4)):
        for head_dim in (128, 256)[: 4 // itemsize]:
            dims = {"HEAD_DIM": head_dim, "PADDED_DIM": head_dim}
            for number, shape in enumerate(tile_shapes(4, head_dim, itemsize)):
                constants = {**HEADS, **dims, "BLOCK_TOKENS": 16, "WINDOW": 1024 * number}
                constants |= {"HAS_CAP": bool(number), "IS_SPLIT": False, "ROWS": shape.rows}
                constants |= {"KEYS": shape.keys, "PRECISION": "ieee" if itemsize > 2 else "tf32"}
                made = compiled(attend_kernel, dtype, constants, shape.warps, shape.stages)
                assert made.metadata.shared <= MOST_SHARED_BYTES
                print(f"attend {dtype} {head_dim} {shape}: {made.metadata.shared} bytes shared")
    dims = {"HEAD_DIM": 128, "PADDED_DIM": 128}
    compiled(merge_kernel, "bf16", {**HEADS, **dims, "ROWS": 16, "PADDED_SPLITS": 64})
    stored = {**dims, "BLOCK_TOKENS": 16, "HEADS": 16, "PADDED_HEADS": 16}
    compiled(store_kernel, "bf16", stored)
    print("merge, store")


if __name__ == "__main__":
    main()
