"""The same seed gives the same text, whatever else the engine does."""

from pathlib import Path
from typing import Any

import pytest

from llm_engine.engine import Engine, GenerationRequest, SamplingParameters
from tests.engine.tiny_llama import Answers, an_engine, prompts_of, save_tiny_llama

ASKED: list[dict[str, Any]] = [
    {"seed": 1},
    {"seed": 2, "top_p": 0.8, "top_k": 30},
    {"seed": 3, "temperature": 1.6, "repetition_penalty": 1.3},
    {"seed": 4, "logit_bias": ((5, 3.0), (6, -100.0)), "top_logprobs": 3},
    {"seed": 5, "presence_penalty": 0.5, "frequency_penalty": 0.5, "min_p": 0.05},
]


def write(engine: Engine, asked: list[dict[str, Any]], at: list[int]) -> list[list[int]]:
    """Return the texts of these requests; request i continues prompt `at[i]`."""
    prompts = prompts_of(20, 33, 5, 40, 12)
    answers = Answers()
    for number, (parameters, prompt) in enumerate(zip(asked, at, strict=True)):
        sampling = SamplingParameters(max_tokens=25, ignore_eos=True, **parameters)
        request = GenerationRequest(str(number), tuple(prompts[prompt]), sampling)
        engine.submit(request, answers.take)
    answers.wait_for_ends(len(asked))
    return [answers.tokens[str(number)] for number in range(len(asked))]


@pytest.mark.parametrize(
    "conditions",
    [
        pytest.param({}, id="beside others"),
        pytest.param({"step_tokens": 9, "step_requests": 5}, id="with prompts in chunks"),
        pytest.param({"blocks": 18}, id="preempted"),
    ],
)
def test_a_seed_repeats_its_text(tmp_path: Path, conditions: dict[str, Any]) -> None:
    save_tiny_llama(tmp_path)
    quiet, busy = an_engine(tmp_path), an_engine(tmp_path, **conditions)
    for engine in (quiet, busy):
        engine.start()
    alone = [write(quiet, [one], [number])[0] for number, one in enumerate(ASKED)]
    together = write(busy, ASKED, list(range(len(ASKED))))
    assert (busy.stats().preemptions > 0) is ("blocks" in conditions)
    for engine in (quiet, busy):
        engine.stop()
    assert together == alone


def test_texts_of_several_seeds_differ_and_come_again(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path)
    engine = an_engine(tmp_path)
    engine.start()
    seeds: list[dict[str, Any]] = [{"seed": 7 + choice} for choice in range(4)]
    first, again = (write(engine, seeds, [0] * 4) for _ in range(2))
    engine.stop()
    assert first == again
    assert len({tuple(text) for text in first}) == 4
