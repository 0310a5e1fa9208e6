"""Every family of models: the tokens of transformers, and exactly its count of weights."""

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.parity import CONDITIONS, DTYPES, Reference, answer, judge, make_reference
from benchmarks.tiny_models import FAMILIES, family_model, save_model
from llm_engine.contract.quantization import Quantization
from tests.engine.family_gguf import save_family_gguf
from tests.engine.test_parity_tiny import running
from tests.engine.tiny_llama import an_engine, prompts_of

NEW_TOKENS = 16


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reference]:
    return cache(lambda family: make_reference(family, tmp_path_factory.mktemp(family)))


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_transformers(
    reference: Callable[[str], Reference], family: str, dtype: str, condition: str
) -> None:
    verdict = judge(reference(family), dtype, CONDITIONS[condition])
    assert verdict.happened
    assert verdict.right == verdict.tokens
    assert verdict.equal_texts >= verdict.decided_texts >= 1
    assert verdict.ties < verdict.tokens / 2
    if dtype == "float32":
        assert verdict.equal_texts == verdict.texts


LONGROPE: dict[str, Any] = {
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0, 1.1],
        "long_factor": [2.0, 5.0],
    },
    "original_max_position_embeddings": 96,
}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        pytest.param("gemma2", {"tie_word_embeddings": True}, id="gemma2 as published, tied"),
        pytest.param("gemma3_text", {"sliding_window_pattern": 6, "num_hidden_layers": 7},
                     id="gemma3 with five windowed layers to one"),
        pytest.param("mixtral", {"sliding_window": 20}, id="experts chosen by chance, and windows"),
        pytest.param("qwen3_moe", {"norm_topk_prob": False, "decoder_sparse_step": 2},
                     id="experts in every second layer, weights that do not sum to 1"),
        pytest.param("qwen2", {"use_sliding_window": False}, id="qwen2 without windows"),
        pytest.param("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0,
                                                   "rope_theta": 1e4}}, id="dynamic rope"),
        pytest.param("phi3", {**LONGROPE, "original_max_position_embeddings": 128},
                     id="longrope within the original context"),
    ],
)  # fmt: skip
def test_variants_of_a_family(tmp_path: Path, family: str, changes: dict[str, Any]) -> None:
    model = family_model(family, **changes)
    save_model(model, tmp_path)
    prompts = prompts_of(5, 40, 70)
    with running(an_engine(tmp_path, step_tokens=17)) as engine:
        answers = answer(engine, prompts, NEW_TOKENS)
        assert engine.shape.parameters == sum(p.numel() for p in model.parameters())
    for prompt, tokens in zip(prompts, answers, strict=True):
        assert likeliest(model, prompt, tokens) == tokens


def test_longrope_uses_the_long_factors_for_every_text_of_a_long_context(tmp_path: Path) -> None:
    model = family_model("phi3", **LONGROPE)
    save_model(model, tmp_path)
    # transformers changes to the long factors at the 97th token, and keeps older keys as they are:
    # a text that is longer from the start is what both compute alike.
    (prompt,) = prompts_of(100)
    with running(an_engine(tmp_path)) as engine:
        (tokens,) = answer(engine, [prompt], NEW_TOKENS)
    assert likeliest(model, prompt, tokens) == tokens


def test_the_text_model_of_a_gemma_that_sees(tmp_path: Path) -> None:
    text = family_model("gemma3_text").config.to_dict()
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import Gemma3Config, Gemma3ForConditionalGeneration
    torch.manual_seed(7)
    config = Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=256,
        boi_token_index=257, eoi_token_index=258, tie_word_embeddings=True,
    )  # fmt: skip
    model = Gemma3ForConditionalGeneration(config).eval()
    save_model(model, tmp_path)
    (prompt,) = prompts_of(70)
    with running(an_engine(tmp_path, step_tokens=17)) as engine:
        (tokens,) = answer(engine, [prompt], NEW_TOKENS)
    assert likeliest(model, prompt, tokens) == tokens


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantization", list(Quantization))
def test_bytes_in_memory_are_those_of_the_contract(
    reference: Callable[[str], Reference], family: str, quantization: Quantization
) -> None:
    folder = reference(family).folder
    for dtype in DTYPES:
        engine = an_engine(folder, dtype=dtype, quantization=quantization)
        runner: Any = engine._runner
        itemsize = getattr(torch, dtype).itemsize
        assert runner.weight_bytes == engine.shape.weight_bytes(quantization, itemsize)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_count_of_weights_is_that_of_transformers(
    reference: Callable[[str], Reference], family: str
) -> None:
    found = reference(family)
    shape = an_engine(found.folder).shape
    assert shape.parameters == sum(weight.numel() for weight in found.exact.parameters())


@pytest.mark.parametrize(("family", "chosen"), [("llama", 1.0), ("mixtral", 2 / 5)])
def test_a_token_meets_only_the_experts_it_chooses(
    reference: Callable[[str], Reference], family: str, chosen: float
) -> None:
    found = reference(family)
    weights = dict(found.exact.named_parameters())
    experts = sum(weight.numel() for name, weight in weights.items() if ".experts." in name)
    shape = an_engine(found.folder).shape
    assert shape.active_parameters == shape.parameters - round(experts * (1 - chosen))


def likeliest(model: Any, prompt: list[int], tokens: list[int]) -> list[int]:
    """Return transformers' likeliest token at each place of the answer, in one pass."""
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + tokens])).logits[0]
    found: list[int] = logits[len(prompt) - 1 : -1].argmax(dim=-1).tolist()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gguf_gives_the_tokens_of_the_same_model_in_safetensors(
    tmp_path: Path, family: str
) -> None:
    # Without what GGUF cannot say: windows of qwen2, dense layers between experts, other scales.
    changes: dict[str, Any] = {}
    if family.startswith("gemma"):
        changes |= {"query_pre_attn_scalar": 8, "tie_word_embeddings": True}
    if family in ("llama", "qwen3"):
        changes["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
    if family in ("llama", "qwen2"):
        changes |= {"attention_bias": False, "use_sliding_window": False}
    if family == "gemma3_text":
        changes |= {"sliding_window_pattern": 6, "num_hidden_layers": 7}
    if family == "qwen3_moe":
        changes["mlp_only_layers"] = []
    model = family_model(family, **changes)
    save_model(model, tmp_path / "folder")
    save_family_gguf(family, tmp_path / "folder", model.config, tmp_path / "model.gguf")
    prompts = prompts_of(5, 40, 70)
    texts = []
    for path in (tmp_path / "folder", tmp_path / "model.gguf"):
        with running(an_engine(path, step_tokens=17)) as engine:
            texts.append(answer(engine, prompts, NEW_TOKENS))
    assert texts[0] == texts[1]
