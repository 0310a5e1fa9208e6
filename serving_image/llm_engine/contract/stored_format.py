"""How a checkpoint that is quantized already keeps its linear weights."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from llm_engine.contract.quantization import Quantization

FP8_BLOCK: Final = 128
"""Rows and columns of the blocks that fp8 checkpoints scale by."""


class StoredMethod(StrEnum):
    """Layouts in files, named after what writes them."""

    AWQ = "AWQ"
    GPTQ = "GPTQ"
    PACKED = "compressed-tensors pack-quantized"
    INT8 = "compressed-tensors int-quantized"
    FP8 = "FP8"


@dataclass(frozen=True)
class StoredFormat:
    """What a checkpoint's quantization_config says, as far as it decides bytes and arithmetic.

    group_size    inputs that share a scale; None: all inputs of an output row do
    has_zeros     zero points are in the file: the weights are not symmetric
    zero_added    what GPTQ's first format left out of every zero point
    scale_suffix  of the tensor with the scales
    """

    method: StoredMethod
    group_size: int | None = None
    has_zeros: bool = False
    zero_added: int = 0
    scale_suffix: str = "weight_scale"

    @property
    def quantization(self) -> Quantization:
        """Return how the engine keeps such weights, without a loss."""
        if self.method is StoredMethod.FP8:
            return Quantization.FP8
        return Quantization.INT8 if self.method is StoredMethod.INT8 else Quantization.INT4
