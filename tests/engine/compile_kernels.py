"""Compile the attention kernels for Hopper, which needs no GPU; print a line for each.

A process of its own: where Triton interprets, it cannot compile.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from llm_engine.attention.triton_kernels import attend_kernel, merge_kernel, store_kernel
from llm_engine.attention.triton_plan import tile_shapes
from llm_engine.quantization.triton_kernels import multiply_kernel
from llm_engine.quantization.triton_linear import tile_of

HOPPER = GPUTarget("cuda", 90, 32)
MOST_SHARED_BYTES = 227 * 1024
HEADS: Mapping[str, Any] = {"KV_HEADS": 8, "GROUP": 4}
NUMBERS = {"query_stride": "i32", "splits": "i32"}
NUMBERS |= {"scale": "fp32", "cap": "fp32"}
NUMBERS |= dict.fromkeys(("rows", "outs", "inputs", "split_inputs"), "i32")
LAYOUTS = (("*i8", 8, 0), ("*fp8e4nv", 8, 128), ("*u8", 4, 32))
POINTERS = {"tables": "*i32", "tiles": "*i32", "slots": "*i32", "weights": "*fp32"}
POINTERS |= {"parts": "*fp32"}


def compiled(
    kernel: Any,
    dtype: str,
    constants: Mapping[str, Any],
    warps: int = 4,
    stages: int = 2,
    pointers: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    known = {**NUMBERS, **POINTERS, **pointers}
    types = {
        name: known.get(name, f"*{dtype}") for name in kernel.arg_names if name not in constants
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
        for head_dim in (128,):
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
    for rows in (1, 128):
        for layout, bits, group in LAYOUTS:
            tile = tile_of(rows, bits == 4)
            pointers = {"values": layout, "scale": "*bf16" if bits == 4 else "*fp32"}
            constants = {"IS_INT4": bits == 4, "GROUP": group, "ROWS": tile.rows}
            constants |= {"OUTS": tile.outs, "INPUTS": tile.inputs, "PRECISION": "tf32"}
            made = compiled(
                multiply_kernel, "bf16", constants, tile.warps, tile.stages, pointers=pointers
            )
            assert made.metadata.shared <= MOST_SHARED_BYTES
            print(f"multiply {layout} {group} {tile}: {made.metadata.shared} bytes shared")


if __name__ == "__main__":
    main()
