"""Every family of models: transformers' tokens and exactly its count of weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llm_engine.contract.quantization import Quantization
from tests.engine.test_parity_tiny import running
from tests.engine.tiny_families import FAMILIES, save_family
from tests.engine.tiny_llama import an_engine, answer, greedy, prompts_of

PROMPTS = prompts_of(5, 40, 17, 70)
NEW_TOKENS = 24


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gives_the_tokens_of_transformers(tmp_path: Path, family: str) -> None:
    model = save_family(family, tmp_path)
    with running(an_engine(tmp_path, step_tokens=17)) as engine:
        answers = answer(engine, PROMPTS, greedy(NEW_TOKENS))
        assert engine.shape.parameters == sum(p.numel() for p in model.parameters())
    for prompt, tokens in zip(PROMPTS, answers, strict=True):
        # One pass over prompt and answer: each token must be the likeliest after those before it.
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + tokens])).logits[0]
        assert logits[len(prompt) - 1 : -1].argmax(dim=-1).tolist() == tokens


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantization", list(Quantization))
def test_bytes_in_memory_are_those_of_the_contract(
    tmp_path: Path, family: str, quantization: Quantization
) -> None:
    save_family(family, tmp_path)
    for dtype, itemsize in (("float32", 4), ("bfloat16", 2)):
        engine = an_engine(tmp_path, dtype=dtype, quantization=quantization)
        runner: Any = engine._runner
        assert runner.weight_bytes == engine.shape.weight_bytes(quantization, itemsize)
