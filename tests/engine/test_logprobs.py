"""Log-probabilities of a whole engine against transformers' own model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llm_engine.engine import Engine, GenerationRequest, SamplingParameters
from llm_engine.sampling.sampled import TokenLogprob
from tests.engine.tiny_llama import Answers, an_engine, prompts_of, save_tiny_llama


class Told(Answers):
    """Keeps what was told of each request's tokens, the prompt's first."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt: dict[str, tuple[TokenLogprob, ...]] = {}
        self.output: dict[str, list[TokenLogprob]] = {}

    def take(self, event: Any) -> None:
        if event.request_id not in self.prompt:
            self.prompt[event.request_id] = event.prompt_logprobs
        else:
            assert event.prompt_logprobs == ()
        self.output.setdefault(event.request_id, []).extend(event.logprobs)
        super().take(event)


def ask(engine: Engine, prompts: list[list[int]], max_tokens: int) -> Told:
    told = Told()
    sampling = SamplingParameters(
        max_tokens=max_tokens, temperature=0.0, ignore_eos=True, top_logprobs=2, prompt_logprobs=2
    )
    for number, prompt in enumerate(prompts):
        request = GenerationRequest(str(number), tuple(prompt), sampling, reads_prefixes=False)
        engine.submit(request, told.take)
    told.wait_for_ends(len(prompts))
    return told


@pytest.mark.parametrize(
    ("blocks", "step_tokens"),
    [
        pytest.param(None, 64, id="prompts at once"),
        pytest.param(None, 7, id="prompts in chunks"),
        pytest.param(17, 64, id="preempted"),
    ],
)
def test_logprobs_are_those_of_transformers(
    tmp_path: Path, blocks: int | None, step_tokens: int
) -> None:
    model = save_tiny_llama(tmp_path)
    engine = an_engine(tmp_path, blocks=blocks, step_tokens=step_tokens, step_requests=5)
    engine.start()
    prompts = prompts_of(40, 1, 25)
    prompts.append(prompts[0])  # in the cache by then, and yet all of it is reported
    told = ask(engine, prompts, max_tokens=20)
    preempted = engine.stats().preemptions > 0
    engine.stop()
    assert preempted is (blocks is not None)
    for name, prompt in enumerate(prompts):
        tokens = prompt + told.tokens[str(name)]
        with torch.no_grad():
            expected = torch.log_softmax(model(torch.tensor([tokens])).logits[0], dim=-1)
        found = (*told.prompt[str(name)], *told.output[str(name)])
        assert [one.token for one in found] == tokens[1:]
        for row, one in zip(expected, found, strict=False):
            assert one.logprob == pytest.approx(float(row[one.token]), abs=1e-4)
            assert [value for _, value in one.top] == pytest.approx(
                row.topk(2).values.tolist(), abs=1e-4
            )
