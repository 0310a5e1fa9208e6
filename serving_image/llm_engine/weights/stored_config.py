"""What the configuration of a checkpoint that is quantized already says of its linears.

Read from config.json's `quantization_config` (or `compression_config`, its older name). Activations
are never quantized here, whatever the checkpoint was made for: that only makes texts better.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.contract.quantization import Quantization
from llm_engine.contract.stored_format import FP8_BLOCK, StoredFormat, StoredMethod

GROUP_SIZES: Final = (32, 64, 128)


def read_stored_format(path: Path, config: Mapping[str, Any]) -> StoredFormat | None:
    """Return how the linears of this configuration are quantized; None: they are not."""
    fields = config.get("quantization_config") or config.get("compression_config")
    if not fields:
        return None
    if not isinstance(fields, dict):
        _refuse(path, "quantization_config", fields, "an object")
    method = fields.get("quant_method")
    reader = _READERS.get(method) if isinstance(method, str) else None
    if reader is None:
        _refuse(path, "quant_method", method, ", ".join(_READERS))
    return reader(path, fields)


def check_wanted(stored: StoredFormat | None, wanted: Quantization) -> None:
    """Refuse to quantize once more what is quantized: each time loses quality."""
    if stored is not None and wanted not in (Quantization.NONE, stored.quantization):
        raise ModelRefused(
            FailureReason.UNSUPPORTED_MODEL,
            f"quantization {wanted} was asked for, and the checkpoint is quantized already "
            f"({stored.method}): ask for None or {stored.quantization}, which keep it as it is, "
            f"or take a checkpoint in bf16",
        )


def _awq(path: Path, fields: Mapping[str, Any]) -> StoredFormat:
    _need(path, fields, "bits", (4,), 4)
    _need(path, fields, "version", ("gemm", "GEMM"), "gemm")
    _need(path, fields, "zero_point", (True,), True)
    return StoredFormat(StoredMethod.AWQ, _group_size(path, fields), has_zeros=True)


def _gptq(path: Path, fields: Mapping[str, Any]) -> StoredFormat:
    _need(path, fields, "bits", (4,), None)
    # With it the inputs of a group are not neighbours, and every product would have to sort them.
    _need(path, fields, "desc_act", (False,), False)
    key = "checkpoint_format" if "checkpoint_format" in fields else "format"
    made = _need(path, fields, key, ("gptq", "gptq_v2"), "gptq")
    return StoredFormat(
        StoredMethod.GPTQ,
        _group_size(path, fields),
        has_zeros=True,
        zero_added=1 if made == "gptq" else 0,
    )


def _fp8(path: Path, fields: Mapping[str, Any]) -> StoredFormat:
    _need(path, fields, "fmt", ("e4m3", "float8_e4m3fn"), "e4m3")
    block = fields.get("weight_block_size")
    if block is None:
        return StoredFormat(StoredMethod.FP8)
    _need(path, fields, "weight_block_size", ([FP8_BLOCK, FP8_BLOCK],), None)
    _need(path, fields, "scale_fmt", ("float", "ue8m0"), "float")
    return StoredFormat(StoredMethod.FP8, FP8_BLOCK, scale_suffix="weight_scale_inv")


def _fbgemm_fp8(_path: Path, _fields: Mapping[str, Any]) -> StoredFormat:
    return StoredFormat(StoredMethod.FP8)


def _compressed_tensors(path: Path, fields: Mapping[str, Any]) -> StoredFormat:
    groups = fields.get("config_groups")
    schemes = list(groups.values()) if isinstance(groups, dict) else []
    weights = [scheme.get("weights") for scheme in schemes if isinstance(scheme, dict)]
    if not weights or any(each != weights[0] for each in weights):
        _refuse(path, "config_groups", groups, "one scheme for all weights")
    scheme = weights[0]
    if not isinstance(scheme, dict):
        _refuse(path, "weights", scheme, "an object")
    kind = (scheme.get("type"), scheme.get("num_bits"), scheme.get("strategy"))
    _need(path, scheme, "actorder", (None, False, "weight", "static"), None)
    symmetric = _need(path, scheme, "symmetric", (True, False), True)
    written = fields.get("format")
    if kind in (("int", 4, "group"), ("int", 4, "channel")) and written == "pack-quantized":
        grouped = scheme["strategy"] == "group"
        size = _group_size(path, scheme) if grouped else None
        return StoredFormat(StoredMethod.PACKED, size, has_zeros=not symmetric)
    if kind in _ROW_SCHEMES and written in _ROW_SCHEMES[kind] and symmetric:
        method = StoredMethod.INT8 if scheme["type"] == "int" else StoredMethod.FP8
        return StoredFormat(method)
    if kind == ("float", 8, "block") and written == "float-quantized" and symmetric:
        _need(path, scheme, "block_structure", ([FP8_BLOCK, FP8_BLOCK],), None)
        return StoredFormat(StoredMethod.FP8, FP8_BLOCK)
    _refuse(
        path,
        "format, type, num_bits, strategy, symmetric",
        (written, *kind, symmetric),
        "pack-quantized int 4 by group or channel; int-quantized int 8 or float-quantized float 8 "
        "by channel or tensor, symmetric; float-quantized float 8 by block",
    )


_ROW_SCHEMES: Final = {
    (kind, 8, strategy): (f"{kind}-quantized", "naive-quantized")
    for kind in ("int", "float")
    for strategy in ("channel", "tensor")
}
_READERS: Final = {
    "awq": _awq,
    "gptq": _gptq,
    "compressed-tensors": _compressed_tensors,
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm_fp8,
}


def _group_size(path: Path, fields: Mapping[str, Any]) -> int | None:
    size = _need(path, fields, "group_size", (*GROUP_SIZES, -1), None)
    return None if size == -1 else size


def _need(
    path: Path, fields: Mapping[str, Any], name: str, allowed: tuple[Any, ...], default: Any
) -> Any:
    """Return a field that must be one of `allowed`; refuse the model by the field's name."""
    value = fields.get(name, default)
    if not any(value == each and type(value) is type(each) for each in allowed):
        _refuse(path, name, value, ", ".join(map(str, allowed)))
    return value


def _refuse(path: Path, name: str, value: Any, allowed: str) -> NoReturn:
    raise ModelRefused(
        FailureReason.UNSUPPORTED_MODEL,
        f"{path}: quantization_config: {name} is {value!r:.200}; this engine reads {allowed}",
    )
