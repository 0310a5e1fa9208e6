"""The tensors that stand in a file for the weight of one linear, where it is quantized there."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.contract.stored_format import FP8_BLOCK, StoredFormat, StoredMethod
from llm_engine.weights.header import TensorEntry

FLOATS: Final = frozenset({"F32", "F16", "BF16"})
_WORDS: Final = frozenset({"I32"})
_BYTES: Final = {
    StoredMethod.INT8: frozenset({"I8"}),
    StoredMethod.FP8: frozenset({"F8_E4M3"}),
}
SUFFIXES: Final = (
    "qweight", "qzeros", "scales",
    "weight_packed", "weight_scale", "weight_zero_point",
    "weight", "weight_scale_inv",
)  # fmt: skip
"""Whatever a quantized linear may have in the files."""
_WORD_NUMBERS: Final = 8
"""Numbers of 4 bits in an int32."""


@dataclass(frozen=True)
class RequiredTensor:
    """A tensor that a file must have: of one of these dtypes, in one of these shapes."""

    name: str
    dtypes: frozenset[str]
    shapes: tuple[tuple[int, ...], ...]


def required_tensors(
    wanted: Mapping[str, tuple[int, ...]],
    linears: Collection[str],
    stored: StoredFormat | None,
    found: Mapping[str, TensorEntry],
) -> list[RequiredTensor]:
    """Return what a folder must have where these tensors are wanted.

    A checkpoint may leave some of its linears unquantized; the files show which.

    wanted   shapes by whole names
    linears  whole names of the weights that may be quantized
    """
    required = []
    for name, shape in wanted.items():
        is_plain = name in found and found[name].dtype in FLOATS
        if stored is None or name not in linears or is_plain or len(shape) != 2:
            required.append(RequiredTensor(name, FLOATS, (shape,)))
        else:
            out_features, in_features = shape
            linear = name.removesuffix(".weight")
            required += stored_tensors(stored, linear, out_features, in_features)
    return required


def stored_tensors(
    stored: StoredFormat, linear: str, out_features: int, in_features: int
) -> tuple[RequiredTensor, ...]:
    """Return what a linear of this name (without a suffix) must have in the files.

    Raises ModelRefused where such a linear cannot be cut into the format's groups.
    """
    group_size = stored.group_size or in_features
    groups = -(-in_features // group_size)
    if stored.method in _BYTES:
        tensors = _byte_tensors(stored, out_features, in_features, groups)
    elif in_features % group_size or in_features % _WORD_NUMBERS:
        raise ModelRefused(
            FailureReason.INVALID_MODEL,
            f"{linear} has {in_features} inputs; expected whole groups of "
            f"{stored.group_size or _WORD_NUMBERS}, since it is quantized as {stored.method}",
        )
    else:
        tensors = _word_tensors(stored, out_features, in_features, groups)
    return tuple(
        RequiredTensor(f"{linear}.{tensor.name}", tensor.dtypes, tensor.shapes)
        for tensor in tensors
    )


def _byte_tensors(
    stored: StoredFormat, out_features: int, in_features: int, groups: int
) -> list[RequiredTensor]:
    if stored.group_size is None:  # one scale for the whole tensor, or one for each row
        scales: tuple[tuple[int, ...], ...] = (
            (), (1,), (1, 1), (out_features,), (out_features, 1),
        )  # fmt: skip
    else:
        scales = ((-(-out_features // FP8_BLOCK), groups),)
    return [
        RequiredTensor("weight", _BYTES[stored.method], ((out_features, in_features),)),
        RequiredTensor(stored.scale_suffix, FLOATS, scales),
    ]


def _word_tensors(
    stored: StoredFormat, out_features: int, in_features: int, groups: int
) -> list[RequiredTensor]:
    out_words = -(-out_features // _WORD_NUMBERS)
    in_words = in_features // _WORD_NUMBERS
    if stored.method is StoredMethod.PACKED:
        tensors = [
            RequiredTensor("weight_packed", _WORDS, ((out_features, in_words),)),
            RequiredTensor("weight_scale", FLOATS, ((out_features, groups),)),
        ]
        if stored.has_zeros:
            tensors.append(RequiredTensor("weight_zero_point", _WORDS, ((out_words, groups),)))
        return tensors
    is_awq = stored.method is StoredMethod.AWQ
    weights = (in_features, out_words) if is_awq else (in_words, out_features)
    return [
        RequiredTensor("qweight", _WORDS, (weights,)),
        RequiredTensor("qzeros", _WORDS, ((groups, out_words),)),
        RequiredTensor("scales", FLOATS, ((groups, out_features),)),
    ]
