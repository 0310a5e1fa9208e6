"""Folders of quantized checkpoints: loaded as they are, or refused by the name of what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.contract.quantization import Quantization
from llm_engine.engine.loading import LoadOptions, load
from llm_engine.model.assembly import load_decoder
from llm_engine.weights.checkpoint import open_checkpoint
from tests.engine import stored
from tests.engine.stored import StoredLinear
from tests.engine.tiny_llama import an_engine, answer, greedy, prompts_of, save_tiny_llama

WIDE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
SCHEMES: dict[str, dict[str, Any]] = {
    "int4": {"type": "int", "num_bits": 4, "strategy": "group", "group_size": 32},
    "int8": {"type": "int", "num_bits": 8, "strategy": "channel"},
    "fp8": {"type": "float", "num_bits": 8, "strategy": "channel"},
}


def compressed_tensors(written: str, scheme: str, symmetric: bool = True) -> dict[str, Any]:
    weights = {"symmetric": symmetric, "dynamic": False, "actorder": None, **SCHEMES[scheme]}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}
    return {
        "quant_method": "compressed-tensors",
        "format": written,
        "config_groups": groups,
        "ignore": ["lm_head"],
    }


AWQ = {
    "quant_method": "awq",
    "bits": 4,
    "group_size": 64,
    "zero_point": True,
    "version": "gemm",
    "modules_to_not_convert": None,
}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
Draw = Callable[[int, int], StoredLinear]
FORMATS: dict[str, tuple[dict[str, Any], Quantization, Draw]] = {
    "AWQ": (AWQ, Quantization.INT4, lambda out, into: stored.awq(out, into, 64)),
    "GPTQ": (
        GPTQ,
        Quantization.INT4,
        lambda out, into: stored.gptq(out, into, 128, symmetric=True, left_out=1),
    ),
    "GPTQ's second format": (
        GPTQ | {"checkpoint_format": "gptq_v2", "sym": False, "group_size": 32},
        Quantization.INT4,
        lambda out, into: stored.gptq(out, into, 32, symmetric=False, left_out=0),
    ),
    "compressed-tensors int4": (
        compressed_tensors("pack-quantized", "int4"),
        Quantization.INT4,
        lambda out, into: stored.pack_quantized(out, into, 32, symmetric=True),
    ),
    "compressed-tensors int4, asymmetric": (
        compressed_tensors("pack-quantized", "int4", symmetric=False),
        Quantization.INT4,
        lambda out, into: stored.pack_quantized(out, into, 32, symmetric=False),
    ),
    "compressed-tensors int8": (
        compressed_tensors("int-quantized", "int8"),
        Quantization.INT8,
        lambda out, into: stored.int8(out, into, (out, 1)),
    ),
    "compressed-tensors fp8": (
        compressed_tensors("float-quantized", "fp8"),
        Quantization.FP8,
        lambda out, into: stored.fp8(out, into, (out, 1)),
    ),
    "fp8, one scale": (
        FP8 | {"activation_scheme": "static"},
        Quantization.FP8,
        lambda out, into: stored.fp8(out, into, ()),
    ),
    "fp8, a scale for each block": (
        FP8 | {"weight_block_size": [128, 128]},
        Quantization.FP8,
        stored.fp8_blocks,
    ),
}
BY_FORMAT = pytest.mark.parametrize("name", FORMATS)


def save_stored(
    folder: Path, name: str, left_out: tuple[str, ...] = (), **config: Any
) -> dict[str, torch.Tensor]:
    """Save a tiny llama whose linears are quantized; return the exact weights by whole names.

    left_out  linears that stay as they are
    """
    fields, _, draw = FORMATS[name]
    save_tiny_llama(folder, **WIDE)
    torch.manual_seed(5)
    tensors = load_file(folder / "model.safetensors")
    exact = {}
    for whole in [each for each in tensors if "proj" in each]:
        linear = whole.removesuffix(".weight")
        if not (left_out and linear.endswith(left_out)):
            drawn = draw(*tensors.pop(whole).shape)
            exact[whole] = drawn.exact
            tensors |= {f"{linear}.{suffix}": tensor for suffix, tensor in drawn.tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    change_config(folder, **fields, **config)
    return exact


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.setdefault("quantization_config", {}).update(fields)
    path.write_text(json.dumps(config))


@BY_FORMAT
def test_the_linears_are_those_of_the_file(tmp_path: Path, name: str) -> None:
    exact = save_stored(tmp_path, name)
    checkpoint = open_checkpoint(tmp_path)
    cpu = torch.device("cpu")
    decoder = load_decoder(checkpoint, Quantization.NONE, torch.float32, cpu, 64)
    assert checkpoint.settings.shape.stored_quantization is FORMATS[name][1]
    for index, layer in enumerate(decoder.layers):
        prefix = f"model.layers.{index}.self_attn"
        expected = torch.cat([exact[f"{prefix}.{part}_proj.weight"] for part in "qkv"])
        found = layer.query_key_value(torch.eye(WIDE["hidden_size"])).t()
        torch.testing.assert_close(found, expected, rtol=2**-7, atol=0.0)


@BY_FORMAT
def test_their_bytes_are_those_of_the_plan(tmp_path: Path, name: str) -> None:
    save_stored(tmp_path, name)
    checkpoint = open_checkpoint(tmp_path)
    cpu = torch.device("cpu")
    decoder = load_decoder(checkpoint, Quantization.NONE, torch.bfloat16, cpu, 64)
    assert decoder.weight_bytes == checkpoint.settings.shape.weight_bytes(Quantization.NONE, 2)


@BY_FORMAT
def test_texts_come_out_whatever_is_in_the_batch(tmp_path: Path, name: str) -> None:
    save_stored(tmp_path, name)
    engine = an_engine(tmp_path)
    engine.start()
    try:
        (alone,) = answer(engine, prompts_of(9), greedy(6))
        together = answer(engine, prompts_of(9, 30, 17), greedy(6))
    finally:
        engine.stop()
    assert len(alone) == 6
    assert together[0] == alone


def test_linears_that_the_checkpoint_left_out_stay_as_they_are(tmp_path: Path) -> None:
    exact = save_stored(tmp_path, "AWQ", left_out=("down_proj",))
    checkpoint = open_checkpoint(tmp_path)
    cpu = torch.device("cpu")
    decoder = load_decoder(checkpoint, Quantization.NONE, torch.float32, cpu, 64)
    plain = load_file(tmp_path / "model.safetensors")["model.layers.0.mlp.down_proj.weight"]
    assert "model.layers.0.mlp.down_proj.weight" not in exact
    found = decoder.layers[0].mlp.down(torch.eye(WIDE["intermediate_size"])).t()  # type: ignore[attr-defined]
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("name", ["AWQ", "compressed-tensors int8", "fp8, one scale"])
@pytest.mark.parametrize("wanted", list(Quantization))
def test_what_is_quantized_is_not_quantized_once_more(
    tmp_path: Path, name: str, wanted: Quantization
) -> None:
    save_stored(tmp_path, name)
    options = LoadOptions(quantization=wanted, device="cpu")
    if wanted in (Quantization.NONE, FORMATS[name][1]):
        load(str(tmp_path), options, lambda _phase: None)
        return
    with pytest.raises(ModelRefused, match=f"{wanted} was asked for.*quantized already"):
        load(str(tmp_path), options, lambda _phase: None)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("AWQ", {"bits": 3}, "bits is 3; this engine reads 4"),
        ("AWQ", {"group_size": 48}, "group_size is 48; this engine reads 32, 64, 128"),
        ("AWQ", {"version": "gemv"}, "version is 'gemv'"),
        ("AWQ", {"quant_method": "exl3"}, "quant_method is 'exl3'; this engine reads awq, gptq"),
        ("AWQ", {"quant_method": ["awq"]}, "quant_method is"),
        ("GPTQ", {"desc_act": True}, "desc_act is True"),
        ("GPTQ", {"bits": "4"}, "bits is '4'"),
        ("GPTQ", {"checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'"),
        ("compressed-tensors int4", {"config_groups": {}}, "config_groups is {}"),
        ("compressed-tensors int4", {"format": "marlin-24"}, "format, type, num_bits"),
        ("compressed-tensors int8", {"config_groups": {"a": {"weights": 4}}}, "weights is 4"),
        ("fp8, one scale", {"fmt": "e5m2"}, "fmt is 'e5m2'"),
        ("fp8, a scale for each block", {"weight_block_size": [64, 64]}, "weight_block_size is"),
    ],
)
def test_a_format_that_is_not_read_is_refused_by_its_field(
    tmp_path: Path, name: str, changes: dict[str, Any], says: str
) -> None:
    save_stored(tmp_path, name)
    change_config(tmp_path, **changes)
    with pytest.raises(ModelRefused) as refusal:
        open_checkpoint(tmp_path)
    assert refusal.value.reason is FailureReason.UNSUPPORTED_MODEL
    assert says in refusal.value.message


@BY_FORMAT
def test_a_missing_scale_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    save_stored(tmp_path, name)
    scale = change_tensors(tmp_path, "scale", lambda _scale: None)
    with pytest.raises(ModelRefused, match=f"no tensor {scale}"):
        open_checkpoint(tmp_path)


@BY_FORMAT
def test_a_weight_of_another_shape_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    save_stored(tmp_path, name)
    weight = change_tensors(tmp_path, "weight", lambda weight: weight[:-1].clone())
    with pytest.raises(ModelRefused, match=f"tensor {weight} has shape"):
        open_checkpoint(tmp_path)


@BY_FORMAT
def test_a_weight_of_another_dtype_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    save_stored(tmp_path, name)
    weight = change_tensors(tmp_path, "weight", lambda weight: weight.to(torch.float8_e5m2))
    with pytest.raises(ModelRefused, match=f"tensor {weight} has dtype F8_E5M2"):
        open_checkpoint(tmp_path)


def test_a_group_that_does_not_divide_the_inputs_is_refused(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path, **WIDE | {"intermediate_size": 192})
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    change_config(tmp_path, **GPTQ)
    with pytest.raises(ModelRefused, match=r"layers.1.mlp.down_proj has 192 inputs.*groups of 128"):
        open_checkpoint(tmp_path)


def change_tensors(
    folder: Path, kind: str, change: Callable[[torch.Tensor], torch.Tensor | None]
) -> str:
    """Change the scale or the weight of one linear; return the tensor's name. None removes it."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    ends = {"scale": ("scales", "weight_scale", "weight_scale_inv")}.get(
        kind, ("qweight", "weight_packed", "weight")
    )
    name: str = next(
        n for n in tensors if "layers.1.mlp.up_proj" in n and n.rsplit(".", maxsplit=1)[-1] in ends
    )
    changed = change(tensors.pop(name))
    if changed is not None:
        tensors[name] = changed
    save_file(tensors, path)
    return name
