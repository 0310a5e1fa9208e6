"""Configurations that make no sense: only refusals come of them, whatever a field says."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_engine.contract.inspection import ModelRefused
from llm_engine.weights.checkpoint import open_checkpoint
from llm_engine.weights.settings.values import read_json_object

NUMBERS = st.integers(-(2**70), 2**70) | st.integers(-2, 70) | st.floats() | st.booleans()
VALUES = st.recursive(
    st.none() | NUMBERS | st.sampled_from(["", "default", "llama3", "yarn", "float32"]) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FAMILIES = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "phi3",
)  # fmt: skip
FIELDS = st.sampled_from(
    [
        "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
        "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings",
        "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "eos_token_id",
        "tie_word_embeddings", "sliding_window", "layer_types", "hidden_act",
        "hidden_activation", "query_pre_attn_scalar", "attn_logit_softcapping",
        "final_logit_softcapping", "num_local_experts", "num_experts", "num_experts_per_tok",
        "moe_intermediate_size", "mlp_only_layers", "decoder_sparse_step", "norm_topk_prob",
        "partial_rotary_factor", "sliding_window_pattern", "use_sliding_window",
        "max_window_layers", "attention_bias", "quantization_config", "torch_dtype",
        "text_config", "architectures", "rope_local_base_freq",
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("absurd") / "model"
    shutil.copytree(tiny_llama, copy)
    return copy


@given(st.sampled_from(FAMILIES), st.dictionaries(FIELDS, VALUES, max_size=4))
def test_no_field_does_worse_than_a_refusal(
    folder: Path, family: str, changes: dict[str, Any]
) -> None:
    path = folder / "config.json"
    config = json.loads((folder / "config.json").read_text()) | {"model_type": family}
    sound = path.read_text()
    path.write_text(json.dumps(config | changes))
    try:
        with contextlib.suppress(ModelRefused):
            open_checkpoint(folder)
    finally:
        path.write_text(sound)


QUANTIZATIONS = st.fixed_dictionaries(
    {"quant_method": st.sampled_from(["awq", "gptq", "compressed-tensors", "fp8"]) | VALUES},
    optional={
        "bits": NUMBERS | VALUES, "group_size": NUMBERS | VALUES, "sym": VALUES,
        "desc_act": VALUES, "zero_point": VALUES, "version": VALUES, "format": VALUES,
        "config_groups": VALUES, "weight_block_size": VALUES, "ignore": VALUES,
        "modules_to_not_convert": VALUES, "activation_scheme": VALUES,
    },
)  # fmt: skip


@given(QUANTIZATIONS)
def test_no_quantization_does_worse_than_a_refusal(folder: Path, stored: dict[str, Any]) -> None:
    path = folder / "config.json"
    sound = path.read_text()
    path.write_text(json.dumps(json.loads(sound) | {"quantization_config": stored}))
    try:
        with contextlib.suppress(ModelRefused):
            open_checkpoint(folder)
    finally:
        path.write_text(sound)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"partial_rotary_factor": 5.0}, "40 of 8 dimensions", id="a turn too wide"),
        pytest.param({"partial_rotary_factor": 0.01}, "0 of 8 dimensions", id="no turn at all"),
        pytest.param({"rms_norm_eps": 10**400}, "rms_norm_eps is 1000", id="400 digits"),
        pytest.param({"hidden_act": ["silu"]}, "hidden_act is", id="a list of activations"),
        pytest.param(
            {
                "model_type": "mixtral", "num_hidden_layers": 1000, "num_local_experts": 1000,
                "num_experts_per_tok": 2,
            },
            "1000 experts in each of 1000 layers", id="a million experts",
        ),
    ],
)  # fmt: skip
def test_absurd_numbers_are_refused_by_name(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    path = folder / "config.json"
    sound = path.read_text()
    path.write_text(json.dumps(json.loads(sound) | changes))
    try:
        with pytest.raises(ModelRefused, match=words):
            open_checkpoint(folder)
    finally:
        path.write_text(sound)


def test_a_configuration_of_a_gigabyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ModelRefused, match="1073741824 bytes"):
        read_json_object(path)
