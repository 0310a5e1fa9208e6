"""Random linears as quantized checkpoints keep them, packed word by word, and what they stand for.

Written from the formats' descriptions and with loops, to share no trick with the engine.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True)
class StoredLinear:
    """One linear: the tensors by suffix, and the exact weight [out_features, in_features]."""

    tensors: dict[str, torch.Tensor]
    exact: torch.Tensor


def packed(numbers: NDArray[Any], order: tuple[int, ...] = tuple(range(8))) -> torch.Tensor:
    """Put eight neighbours of a row into an int32; `order` names what each 4 bits hold."""
    rows, columns = numbers.shape
    padded = np.zeros((rows, -(-columns // 8) * 8), dtype=np.int64)
    padded[:, :columns] = numbers
    words = np.zeros((rows, padded.shape[1] // 8), dtype=np.uint32)
    for word in range(words.shape[1]):
        for place, source in enumerate(order):
            words[:, word] |= (padded[:, 8 * word + source] << (4 * place)).astype(np.uint32)
    return torch.from_numpy(words.view(np.int32).copy())


def awq(out: int, into: int, group_size: int) -> StoredLinear:
    """Return a linear as AutoAWQ's gemm version keeps it."""
    codes, zeros, scales = _drawn(out, into, into // group_size)
    tensors = {
        "qweight": packed(codes.T, AWQ_ORDER),
        "qzeros": packed(zeros.T, AWQ_ORDER),
        "scales": scales.t().contiguous(),
    }
    return StoredLinear(tensors, _exact(codes, zeros, scales))


def gptq(out: int, into: int, group_size: int, symmetric: bool, left_out: int) -> StoredLinear:
    """Return a linear as GPTQ keeps it; the first format leaves 1 out of every zero."""
    codes, zeros, scales = _drawn(out, into, into // group_size)
    zeros = np.full_like(zeros, 8) if symmetric else zeros + left_out
    tensors = {
        "qweight": packed(codes).t().contiguous(),
        "qzeros": packed((zeros - left_out).T),
        "scales": scales.t().contiguous(),
        "g_idx": torch.arange(into, dtype=torch.int32) // group_size,
    }
    return StoredLinear(tensors, _exact(codes, zeros, scales))


def pack_quantized(out: int, into: int, group_size: int, symmetric: bool) -> StoredLinear:
    """Return a linear as compressed-tensors keeps int4, -8 to 7 with 8 added."""
    codes, zeros, scales = _drawn(out, into, into // group_size)
    zeros = np.full_like(zeros, 8) if symmetric else zeros
    scales = scales.bfloat16()
    tensors = {
        "weight_packed": packed(codes),
        "weight_scale": scales,
        "weight_shape": torch.tensor([out, into]),
    }
    if not symmetric:
        tensors["weight_zero_point"] = packed(zeros.T).t().contiguous()
    return StoredLinear(tensors, _exact(codes, zeros, scales))


def int8(out: int, into: int, scales: tuple[int, ...]) -> StoredLinear:
    """Return a linear as compressed-tensors keeps int8, with scales of that shape."""
    values = torch.randint(-128, 128, (out, into), dtype=torch.int8)
    scale = (torch.rand(scales) + 0.1).bfloat16()
    exact = values.float() * scale.float().reshape(-1, 1)
    return StoredLinear({"weight": values, "weight_scale": scale}, exact)


def fp8(out: int, into: int, scales: tuple[int, ...]) -> StoredLinear:
    """Return a linear in e4m3 with scales of that shape."""
    values = torch.randn(out, into).mul(100).to(torch.float8_e4m3fn)
    scale = torch.rand(scales) + 0.1
    exact = values.float() * scale.reshape(-1, 1)
    return StoredLinear({"weight": values, "weight_scale": scale}, exact)


def fp8_blocks(out: int, into: int) -> StoredLinear:
    """Return a linear in e4m3 with a scale for each 128 x 128 block."""
    values = torch.randn(out, into).mul(100).to(torch.float8_e4m3fn)
    scale = torch.rand(-(-out // 128), -(-into // 128)) + 0.1
    exact = values.float()
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            exact[128 * i : 128 * (i + 1), 128 * j : 128 * (j + 1)] *= scale[i, j]
    return StoredLinear({"weight": values, "weight_scale_inv": scale}, exact)


def _drawn(out: int, into: int, groups: int) -> tuple[NDArray[Any], NDArray[Any], torch.Tensor]:
    """Return codes [out, into], zeros [out, groups] and fp16 scales [out, groups]."""
    codes = torch.randint(0, 16, (out, into)).numpy()
    zeros = torch.randint(0, 16, (out, groups)).numpy()
    return codes, zeros, (torch.rand(out, groups) * 0.02 + 0.001).half()


def _exact(codes: NDArray[Any], zeros: NDArray[Any], scales: torch.Tensor) -> torch.Tensor:
    """Return (code - zero) * scale in fp64, rounded once: exact, so fp32 must be equal."""
    group_size = codes.shape[1] // zeros.shape[1]
    steps = codes - zeros.repeat(group_size, axis=1)
    wide = scales.double().numpy().repeat(group_size, axis=1)
    return torch.from_numpy(steps * wide).float()
