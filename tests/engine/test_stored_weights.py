"""Quantized checkpoints: what their files hold is what the engine multiplies by, bit by bit."""

from collections.abc import Callable

import pytest
import torch

from llm_engine.contract.quantization import Quantization
from llm_engine.contract.stored_format import StoredFormat, StoredMethod
from llm_engine.quantization.linear import make_linear
from llm_engine.quantization.repack import repack
from llm_engine.quantization.weight import decoded, fuse
from tests.engine import stored
from tests.engine.stored import StoredLinear

OUT, INTO = 192, 384
AWQ, GPTQ, PACKED = StoredMethod.AWQ, StoredMethod.GPTQ, StoredMethod.PACKED

Case = tuple[StoredFormat, Callable[[], StoredLinear]]
CASES: dict[str, Case] = {
    f"{name}, groups of {size}": case
    for size in (32, 64, 128)
    for name, case in {
        "AWQ": (
            StoredFormat(AWQ, size, has_zeros=True),
            lambda size=size: stored.awq(OUT, INTO, size),
        ),
        "GPTQ, symmetric": (
            StoredFormat(GPTQ, size, has_zeros=True, zero_added=1),
            lambda size=size: stored.gptq(OUT, INTO, size, symmetric=True, left_out=1),
        ),
        "GPTQ, asymmetric": (
            StoredFormat(GPTQ, size, has_zeros=True, zero_added=1),
            lambda size=size: stored.gptq(OUT, INTO, size, symmetric=False, left_out=1),
        ),
        "GPTQ's second format": (
            StoredFormat(GPTQ, size, has_zeros=True),
            lambda size=size: stored.gptq(OUT, INTO, size, symmetric=False, left_out=0),
        ),
        "compressed-tensors, symmetric": (
            StoredFormat(PACKED, size),
            lambda size=size: stored.pack_quantized(OUT, INTO, size, symmetric=True),
        ),
        "compressed-tensors, asymmetric": (
            StoredFormat(PACKED, size, has_zeros=True),
            lambda size=size: stored.pack_quantized(OUT, INTO, size, symmetric=False),
        ),
    }.items()
} | {
    "GPTQ, a scale for each row": (
        StoredFormat(GPTQ, None, has_zeros=True, zero_added=1),
        lambda: stored.gptq(OUT, INTO, INTO, symmetric=True, left_out=1),
    ),
    "int8, a scale for each row": (
        StoredFormat(StoredMethod.INT8),
        lambda: stored.int8(OUT, INTO, (OUT, 1)),
    ),
    "int8, one scale": (StoredFormat(StoredMethod.INT8), lambda: stored.int8(OUT, INTO, (1,))),
    "fp8, one scale": (StoredFormat(StoredMethod.FP8), lambda: stored.fp8(OUT, INTO, ())),
    "fp8, a scale for each row": (
        StoredFormat(StoredMethod.FP8),
        lambda: stored.fp8(OUT, INTO, (OUT, 1)),
    ),
    "fp8, a scale for each block": (
        StoredFormat(StoredMethod.FP8, 128, scale_suffix="weight_scale_inv"),
        lambda: stored.fp8_blocks(OUT, INTO),
    ),
}
BY_FORMAT = pytest.mark.parametrize(("stored_format", "draw"), CASES.values(), ids=CASES)
CPU = torch.device("cpu")


@BY_FORMAT
def test_what_is_kept_is_bit_by_bit_what_the_file_stands_for(
    stored_format: StoredFormat, draw: Callable[[], StoredLinear]
) -> None:
    torch.manual_seed(1)
    linear = draw()
    assert torch.equal(repack(stored_format, linear.tensors).decoded(), linear.exact)


@BY_FORMAT
def test_pieces_below_each_other_stay_what_they_are(
    stored_format: StoredFormat, draw: Callable[[], StoredLinear]
) -> None:
    torch.manual_seed(2)
    pieces = [draw() for _ in range(3)]
    fused = fuse([repack(stored_format, piece.tensors) for piece in pieces], torch.float32, CPU)
    assert not isinstance(fused, torch.Tensor)
    assert torch.equal(decoded(fused), torch.cat([piece.exact for piece in pieces]))


@BY_FORMAT
@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_product_is_that_of_the_exact_weight(
    stored_format: StoredFormat, draw: Callable[[], StoredLinear], rows: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(3)
    linear = draw()
    x = torch.randn(rows, INTO).to(dtype)
    weight = fuse([repack(stored_format, linear.tensors)], dtype, CPU)
    found = make_linear(weight, Quantization.NONE)(x)
    exact = x.float() @ linear.exact.T
    assert found.dtype is dtype
    error = (found.float() - exact).norm() / exact.norm()
    # Quantized linears round their input and their product to bf16, which keeps 8 bits.
    assert error < 2**-7


def test_a_piece_that_was_left_out_is_joined_in_the_compute_dtype() -> None:
    stored_format = StoredFormat(AWQ, 32, has_zeros=True)
    quantized, plain = stored.awq(OUT, INTO, 32), torch.randn(64, INTO)
    fused = fuse([repack(stored_format, quantized.tensors), plain], torch.bfloat16, CPU)
    assert isinstance(fused, torch.Tensor)
    assert torch.equal(fused, torch.cat([quantized.exact, plain]).bfloat16())
