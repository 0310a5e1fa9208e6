"""From the layouts of quantized checkpoints to ours, without a loss.

Four bits at a time are packed into int32, the least significant first:
  AWQ     weights [in, out / 8] and zeros [groups, out / 8], eight outputs in the order of AWQ_ORDER
  GPTQ    weights [in / 8, out], zeros [groups, out / 8]; the first format left 1 out of each zero
  packed  weights [out, in / 8], zeros [out / 8, groups] (compressed-tensors)
"""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from llm_engine.contract.stored_format import FP8_BLOCK, StoredFormat, StoredMethod
from llm_engine.quantization.fp8 import Fp8Weight
from llm_engine.quantization.int4 import CODE_CENTRE, Int4Weight, pack_codes, unpack_codes
from llm_engine.quantization.int8 import Int8Weight
from llm_engine.quantization.weight import QuantizedWeight

AWQ_ORDER: Final = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight outputs each four bits of an int32 hold."""


def repack(stored: StoredFormat, tensors: Mapping[str, Tensor]) -> QuantizedWeight:
    """Return the weight of one linear; `tensors` has what the file has, by suffix."""
    return _REPACKERS[stored.method](stored, tensors)


def _awq(stored: StoredFormat, tensors: Mapping[str, Tensor]) -> Int4Weight:
    codes = _awq_codes(tensors["qweight"]).t()
    zeros = _awq_codes(tensors["qzeros"]).t() if stored.has_zeros else None
    return _int4(pack_codes(codes), tensors["scales"].t(), zeros)


def _gptq(stored: StoredFormat, tensors: Mapping[str, Tensor]) -> Int4Weight:
    words = tensors["qweight"]
    # The bytes of a word have the order of ours: [in / 8, out, 4] -> [out, in / 8, 4].
    codes = words.contiguous().view(torch.uint8).view(*words.shape, 4).transpose(0, 1).flatten(1)
    zeros = _codes(tensors["qzeros"]).t() + stored.zero_added
    return _int4(codes, tensors["scales"].t(), zeros)


def _packed(stored: StoredFormat, tensors: Mapping[str, Tensor]) -> Int4Weight:
    codes = tensors["weight_packed"].contiguous().view(torch.uint8)
    scale = tensors["weight_scale"].view(len(codes), -1)
    zeros = None
    if stored.has_zeros:
        zeros = _codes(tensors["weight_zero_point"].t()).t()[: len(codes)]
    return _int4(codes, scale, zeros)


def _int8(stored: StoredFormat, tensors: Mapping[str, Tensor]) -> Int8Weight:
    values = tensors["weight"]
    return Int8Weight(values, _row_scale(tensors[stored.scale_suffix], len(values)).flatten())


def _fp8(stored: StoredFormat, tensors: Mapping[str, Tensor]) -> Fp8Weight:
    values, scale = tensors["weight"], tensors[stored.scale_suffix]
    if stored.group_size is None:
        return Fp8Weight(values, _row_scale(scale, len(values)))
    # A scale for each row: pieces that end inside a block can then be put below each other.
    rows = scale.float().repeat_interleave(FP8_BLOCK, dim=0)[: len(values)]
    return Fp8Weight(values, rows)


_REPACKERS: Final[dict[StoredMethod, Callable[..., QuantizedWeight]]] = {
    StoredMethod.AWQ: _awq,
    StoredMethod.GPTQ: _gptq,
    StoredMethod.PACKED: _packed,
    StoredMethod.INT8: _int8,
    StoredMethod.FP8: _fp8,
}


def _int4(codes: Tensor, scale: Tensor, zeros: Tensor | None) -> Int4Weight:
    """Return (codes - zeros) * scale; without zeros the codes are centred."""
    exact = scale.float().contiguous()
    # A whole number of at most 4 bits times 16-bit scales: exact in fp32, as is the sum later.
    offset = torch.zeros_like(exact) if zeros is None else (CODE_CENTRE - zeros.float()) * exact
    return Int4Weight(codes.contiguous(), exact, offset.contiguous())


def _row_scale(scale: Tensor, rows: int) -> Tensor:
    """Return fp32 [rows, 1] from one scale for all or one for each row."""
    return scale.float().reshape(-1, 1).expand(rows, 1).contiguous()


def _codes(words: Tensor) -> Tensor:
    """Unpack int32 [rows, columns] to uint8 [rows, 8 * columns]."""
    return unpack_codes(words.contiguous().view(torch.uint8))


def _awq_codes(words: Tensor) -> Tensor:
    """Unpack as AWQ packs: to uint8 [rows, 8 * columns]."""
    places = torch.tensor(AWQ_ORDER).argsort()
    return _codes(words).view(len(words), -1, 8)[:, :, places].flatten(1)
