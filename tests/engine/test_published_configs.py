"""Configurations as model makers publish them: the shape, and exactly the weights they count."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from llm_engine.contract.inspection import Inspection, ModelRefused, termination_message
from llm_engine.contract.shape import ModelShape
from llm_engine.model.rotary import rotary_table
from llm_engine.weights.names import expected_shapes
from llm_engine.weights.settings import DecoderSettings, settings_from_folder
from llm_engine.weights.settings.rope import LinearScaling, Llama3Scaling, LongScaling, Rope

LLAMA_3_1_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0, "tie_word_embeddings": False, "hidden_act": "silu",
    "attention_bias": False, "mlp_bias": False, "eos_token_id": [128001, 128008, 128009],
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
}  # fmt: skip
MISTRAL_7B = {
    "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 32000, "max_position_embeddings": 32768, "sliding_window": 4096,
    "rope_theta": 10000.0, "tie_word_embeddings": False,
}  # fmt: skip
MIXTRAL_8X7B = {
    **MISTRAL_7B, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2,
    "sliding_window": None, "rope_theta": 1e6,
}  # fmt: skip
QWEN2_5_0_5B = {
    "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
    "max_position_embeddings": 32768, "tie_word_embeddings": True, "rope_theta": 1e6,
    "use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 21,
}  # fmt: skip
QWEN3_0_6B = {
    "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "max_position_embeddings": 40960, "tie_word_embeddings": True, "rope_theta": 1e6,
    "rope_scaling": None, "use_sliding_window": False, "sliding_window": None,
    "max_window_layers": 28, "attention_bias": False,
}  # fmt: skip
QWEN3_30B_A3B = {
    **QWEN3_0_6B, "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144,
    "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
    "tie_word_embeddings": False, "num_experts": 128, "num_experts_per_tok": 8,
    "moe_intermediate_size": 768, "norm_topk_prob": True, "decoder_sparse_step": 1,
    "mlp_only_layers": [], "max_window_layers": 48,
}  # fmt: skip
GEMMA_2_2B = {
    "model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216,
    "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "vocab_size": 256000, "max_position_embeddings": 8192, "sliding_window": 4096,
    "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
    "rope_theta": 10000.0,
}  # fmt: skip
GEMMA_3_1B = {
    "model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912,
    "num_hidden_layers": 26, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
    "vocab_size": 262144, "max_position_embeddings": 32768, "sliding_window": 512,
    "sliding_window_pattern": 6, "query_pre_attn_scalar": 256, "rope_theta": 1000000,
    "rope_local_base_freq": 10000, "rope_scaling": None, "attn_logit_softcapping": None,
    "final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh",
}  # fmt: skip
GEMMA_3_4B = {
    "model_type": "gemma3", "eos_token_id": [1, 106], "vision_config": {},
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
        "num_hidden_layers": 34, "sliding_window": 1024,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    },
}  # fmt: skip
PHI_3_MINI = {
    "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064,
    "max_position_embeddings": 4096, "original_max_position_embeddings": 4096,
    "rope_scaling": None, "sliding_window": 2047, "tie_word_embeddings": False,
}  # fmt: skip
PHI_4_MINI = {
    **PHI_3_MINI, "num_attention_heads": 24, "num_key_value_heads": 8, "vocab_size": 200064,
    "max_position_embeddings": 131072, "sliding_window": 262144, "tie_word_embeddings": True,
    "partial_rotary_factor": 0.75,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48},
}  # fmt: skip


def settings_of(folder: Path, config: dict[str, Any]) -> DecoderSettings:
    (folder / "config.json").write_text(json.dumps(config))
    return settings_from_folder(folder)


@pytest.mark.parametrize(
    ("config", "parameters", "active", "windowed"),
    [
        pytest.param(LLAMA_3_1_8B, 8_030_261_248, None, 0, id="Llama-3.1-8B"),
        pytest.param(MISTRAL_7B, 7_241_732_096, None, 32, id="Mistral-7B-v0.1"),
        pytest.param(MIXTRAL_8X7B, 46_702_792_704, 12_879_925_248, 0, id="Mixtral-8x7B"),
        pytest.param(QWEN2_5_0_5B, 494_032_768, None, 0, id="Qwen2.5-0.5B"),
        pytest.param(QWEN3_0_6B, 596_049_920, None, 0, id="Qwen3-0.6B"),
        pytest.param(QWEN3_30B_A3B, 30_532_122_624, 3_353_032_704, 0, id="Qwen3-30B-A3B"),
        pytest.param(GEMMA_2_2B, 2_614_341_888, None, 13, id="Gemma-2-2B"),
        pytest.param(GEMMA_3_1B, 999_885_952, None, 22, id="Gemma-3-1B"),
        pytest.param(GEMMA_3_4B, 3_880_263_168, None, 29, id="Gemma-3-4B, its text model"),
        pytest.param(PHI_3_MINI, 3_821_079_552, None, 32, id="Phi-3-mini-4k"),
        pytest.param(PHI_4_MINI, 3_836_021_760, None, 32, id="Phi-4-mini"),
    ],
)
def test_a_published_model_has_the_weights_that_are_published(
    tmp_path: Path, config: dict[str, Any], parameters: int, active: int | None, windowed: int
) -> None:
    shape = settings_of(tmp_path, config).shape
    assert shape.parameters == parameters
    assert shape.active_parameters == (active or parameters)
    assert len(shape.windowed_layers) == windowed


def test_rotations_of_published_models(tmp_path: Path) -> None:
    llama = settings_of(tmp_path, LLAMA_3_1_8B)
    assert llama.rope == Rope(500_000.0, 128, Llama3Scaling(8.0, 1.0, 4.0, 8192))
    gemma = settings_of(tmp_path, GEMMA_3_1B)
    assert (gemma.rope, gemma.local_rope) == (Rope(1e6, 256), Rope(1e4, 256))
    gemma = settings_of(tmp_path, GEMMA_3_4B)
    assert (gemma.rope, gemma.local_rope) == (Rope(1e6, 256, LinearScaling(8.0)), Rope(1e4, 256))
    assert gemma.eos_tokens == {1, 106}
    phi = settings_of(tmp_path, PHI_4_MINI)
    assert phi.rope.rotary_dim == 96
    assert isinstance(phi.rope.scaling, LongScaling)
    assert (phi.rope.scaling.factor, phi.rope.scaling.original_context_tokens) == (32.0, 4096)


def test_a_gemma_has_what_its_configuration_leaves_to_the_family(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, GEMMA_2_2B)
    assert settings.shape.tied_embeddings
    assert settings.embedding_scale == 48.0
    assert settings.attention_scale == 1 / 16
    assert (settings.attention_softcap, settings.logit_softcap) == (50.0, 30.0)
    assert settings.activation == "gelu_tanh"
    assert settings.shape.windowed_layers[:3] == (0, 2, 4)


@pytest.mark.parametrize(
    "model_type", ["gpt_oss", "deepseek_v3", "gemma3n", "llama4", "qwen2_vl", None]
)
def test_other_families_are_refused_by_name(tmp_path: Path, model_type: str | None) -> None:
    with pytest.raises(ModelRefused, match=f"model_type is {model_type!r}; this engine serves"):
        settings_of(tmp_path, {**LLAMA_3_1_8B, "model_type": model_type})


def test_the_largest_shape_fits_a_termination_message(tmp_path: Path) -> None:
    shape = settings_of(tmp_path, QWEN3_30B_A3B).shape
    layers = tuple(range(256))
    largest = ModelShape(
        **{
            **shape.model_dump(),
            "layers": 256,
            "window_tokens": 131072,
            "windowed_layers": layers,
            "dense_layers": layers,
        }
    )
    report = Inspection(
        shape=largest, file_bytes=10**13, file_format="safetensors", file_dtype="BF16"
    )
    assert Inspection.model_validate_json(termination_message(report)) == report


NONSENSE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    7,
    1.5,
    10**30,
    float("nan"),
    "x",
    [],
    [1],
    ["x"],
    {},
    {"x": 1},
)
SOUND: dict[str, dict[str, Any]] = {
    "llama": LLAMA_3_1_8B,
    "qwen2": QWEN2_5_0_5B | {"use_sliding_window": True},
    "qwen3_moe": QWEN3_30B_A3B,
    "gemma2": GEMMA_2_2B | {"layer_types": ["full_attention"] * 26},
    "gemma3": GEMMA_3_4B,
    "phi4": PHI_4_MINI,
}


@pytest.mark.parametrize("name", SOUND)
def test_no_value_of_a_configuration_can_do_worse_than_a_refusal(tmp_path: Path, name: str) -> None:
    sound = SOUND[name]
    rope = sound.get("rope_scaling") or {"rope_type": "yarn", "factor": 4.0}
    changed = [{**sound, field: value} for field in sound for value in NONSENSE]
    changed += [
        {**sound, "rope_scaling": {**rope, field: value}}
        for field in (*rope, "original_max_position_embeddings", "attention_factor", "beta_fast")
        for value in NONSENSE
    ]
    if "text_config" in sound:
        inner: dict[str, Any] = sound["text_config"]
        changed += [
            {**sound, "text_config": {**inner, field: value}}
            for field in inner
            for value in NONSENSE
        ]
    for config in changed:
        with contextlib.suppress(ModelRefused):
            settings = settings_of(tmp_path, config)
            assert expected_shapes(settings.names, settings.shape)
            rotary_table(settings.rope, 8, None)
