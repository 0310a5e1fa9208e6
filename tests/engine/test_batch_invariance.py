"""What becomes of a request has no bit that depends on who else is there, or on its way.

The log-probabilities of the likeliest tokens stand for all bits: they change with any of them.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.tiny_models import family_model, save_model
from llm_engine.contract.arguments import AttentionName
from llm_engine.contract.quantization import Quantization
from llm_engine.engine import Engine, GenerationRequest, SamplingParameters, TokenEvent
from llm_engine.engine.active import ActiveRequest
from llm_engine.sampling.sampled import TokenLogprob
from tests.engine.test_parity_tiny import running
from tests.engine.tiny_llama import BLOCK_TOKENS, Answers, an_engine, prompts_of

PROMPTS = prompts_of(5, 40, 17, 70, 33, 1)
NEW_TOKENS = 24
SAMPLING = SamplingParameters(
    max_tokens=NEW_TOKENS, temperature=0.0, ignore_eos=True, top_logprobs=20
)


class Bits(Answers):
    """Collects every log-probability too."""

    def __init__(self) -> None:
        super().__init__()
        self.logprobs: dict[str, list[TokenLogprob]] = {}

    def take(self, event: TokenEvent) -> None:
        self.logprobs.setdefault(event.request_id, []).extend(event.logprobs)
        super().take(event)


def bits(engine: Engine, prompts: Sequence[Sequence[int]]) -> list[list[TokenLogprob]]:
    """Answer all prompts at once."""
    answers = Bits()
    for number, prompt in enumerate(prompts):
        engine.submit(GenerationRequest(str(number), tuple(prompt), SAMPLING), answers.take)
    answers.wait_for_ends(len(prompts))
    return [answers.logprobs[str(number)] for number in range(len(prompts))]


def alone(folder: Path, **options: Any) -> list[list[TokenLogprob]]:
    """Answer one prompt after the other, each from its first token on."""
    with running(an_engine(folder, keeps_prefixes=False, **options)) as engine:
        return [bits(engine, [prompt])[0] for prompt in PROMPTS]


def check_every_way(folder: Path, few_blocks: int, **options: Any) -> None:
    """Compare with a request alone: together, in chunks, preempted, and with a prefix found."""
    expected = alone(folder, **options)
    assert [len(answer) for answer in expected] == [NEW_TOKENS] * len(PROMPTS)
    with running(an_engine(folder, **options)) as engine:
        assert bits(engine, PROMPTS) == expected, "together"
        assert bits(engine, PROMPTS) == expected, "with a prefix found"
        assert engine.stats().prefix_found_tokens > 0
    with running(an_engine(folder, step_tokens=17, **options)) as engine:
        assert bits(engine, PROMPTS) == expected, "in chunks"
    with running(an_engine(folder, blocks=few_blocks, step_tokens=17, **options)) as engine:
        assert bits(engine, PROMPTS) == expected, "preempted"
        assert engine.stats().preemptions > 0


@pytest.mark.parametrize("quantization", list(Quantization))
def test_invariant_attention_keeps_every_bit(tiny_llama: Path, quantization: Quantization) -> None:
    check_every_way(tiny_llama, 16, attention=AttentionName.INVARIANT, quantization=quantization)


@pytest.mark.parametrize(("family", "few_blocks"), [("gemma2", 32), ("qwen3_moe", 16)])
def test_windows_and_experts_keep_every_bit(tmp_path: Path, family: str, few_blocks: int) -> None:
    save_model(family_model(family), tmp_path)
    check_every_way(tmp_path, few_blocks, attention=AttentionName.INVARIANT)


def test_traffic_with_shared_prompts_aborts_and_preemption_keeps_every_bit(
    tiny_llama: Path,
) -> None:
    engine = an_engine(tiny_llama, blocks=20, step_tokens=17, attention=AttentionName.INVARIANT)
    stepper, chance, answers = engine._stepper, Random(3), Bits()
    prompts: dict[str, list[int]] = {}
    active: dict[str, ActiveRequest] = {}
    for step in range(300):
        if step % 5 == 0 and len(prompts) < 24:
            name = str(len(prompts))
            shared = PROMPTS[chance.randrange(4)]
            prompts[name] = [*shared[: chance.randrange(len(shared))], chance.randrange(256)]
            active[name] = ActiveRequest(
                GenerationRequest(name, tuple(prompts[name]), SAMPLING),
                answers.take,
                frozenset(),
                BLOCK_TOKENS,
                engine._runner.windows,
                now_s=0.0,
            )
            engine._known[name] = active[name]
            stepper.add(active[name])
            if chance.random() < 0.2:
                stepper.finish(active[str(chance.randrange(len(prompts)))], "abort")
        if stepper.has_work:
            stepper.step()
    stats = stepper.stats()
    assert stats.is_idle
    assert stats.kv_usage == 0.0
    assert min(stats.preemptions, stats.prefix_found_tokens) > 0
    finished = [name for name, event in answers.last.items() if event.finish_reason == "length"]
    assert 12 < len(finished) < 24
    with running(
        an_engine(tiny_llama, keeps_prefixes=False, attention=AttentionName.INVARIANT)
    ) as fresh:
        for name in finished:
            assert answers.logprobs[name] == bits(fresh, [prompts[name]])[0]
