"""A published model on real text: the tokens of transformers, and a sensible answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.smollm2 import transformers_model
from llm_engine.contract.quantization import Quantization
from llm_engine.engine import Engine, SamplingParameters
from llm_engine.engine.generation import generate
from tests.engine.tiny_llama import answer, greedy

NEW_TOKENS = 16
PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "Water boils at 100 degrees Celsius, which is",
    "The three laws of thermodynamics are",
    "Dear Sir or Madam,\n\nI am writing to",
    "1, 1, 2, 3, 5, 8, 13,",
    "In 1969, the first humans",
    "La révolution française commença en",
    "Q: Why is the sky blue?\nA:",
)


@pytest.fixture(scope="module")
def engine(smollm2: Path) -> Iterator[Engine]:
    engine = Engine.load(str(smollm2), device="cpu", dtype="float32", max_context_tokens=512)
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def reference(smollm2: Path) -> Any:
    """Return transformers' llama with the file's weights, read without any code of the engine."""
    return transformers_model(smollm2)


@pytest.mark.timeout(400)  # reading the vocabulary with the gguf package alone takes 10 s
def test_ten_prompts_in_one_batch_give_the_tokens_of_transformers(
    engine: Engine, reference: Any
) -> None:
    prompts = [engine.tokenizer.encode(prompt) for prompt in PROMPTS]
    ours = answer(engine, prompts, greedy(NEW_TOKENS))
    for prompt, tokens in zip(prompts, ours, strict=True):
        # One pass over prompt and answer: each token must be the likeliest after those before it.
        with torch.inference_mode():
            logits = reference(torch.tensor([prompt + tokens])).logits[0]
        assert logits[len(prompt) - 1 : -1].argmax(dim=-1).tolist() == tokens


def test_the_capital_of_france_is_paris(engine: Engine) -> None:
    text: list[str] = []
    sampling = SamplingParameters(max_tokens=20, temperature=0.0)
    times = generate(engine, "What is the capital of France?", sampling, text.append, chat=True)
    assert "".join(text) == "The capital of France is Paris."
    assert times.output_tokens == 8  # the end token counts, and is not shown


@pytest.mark.timeout(300)
def test_int8_still_knows_paris_in_a_third_of_the_memory_of_its_linears(
    engine: Engine, smollm2: Path
) -> None:
    small = Engine.load(
        str(smollm2), quantization=Quantization.INT8, device="cpu", max_context_tokens=512
    )
    small.start()
    text: list[str] = []
    sampling = SamplingParameters(max_tokens=20, temperature=0.0)
    generate(small, "What is the capital of France?", sampling, text.append, chat=True)
    small.stop()
    assert "Paris" in "".join(text)
    embedding = engine.shape.vocabulary * engine.shape.hidden_size * 4
    linears = engine._runner.weight_bytes - embedding
    assert small._runner.weight_bytes - embedding < linears / 3


def test_text_survives_encoding_and_digits_stand_alone(engine: Engine) -> None:
    tokenizer = engine.tokenizer
    text = "Zoë paid 1234 €\n\tfor 漢字 😀 <|im_end|> twice"
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert len(tokenizer.encode("1234")) == 4
    assert not set(tokens) & tokenizer.eos_tokens
