"""What is computed before anybody asks."""

from collections.abc import Mapping, Sequence

from llm_engine.engine.warm_up import warm_up
from llm_engine.sampling.choice import Choice, Score
from llm_engine.sampling.sampled import StepResult
from llm_engine.scheduling.request import Request


class NotingRunner:
    """Notes each step: of how many requests, behind how much, and how many tokens."""

    blocks = 2
    block_tokens = 16
    windows = (None, 32)
    weight_bytes = 0
    cache_bytes = 0

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, int]] = []

    def enter_thread(self) -> None:
        pass

    def run(
        self,
        tokens: Mapping[Request, int],
        choices: Sequence[Choice],
        scores: Sequence[Score] = (),
    ) -> StepResult:
        assert not choices
        assert not scores
        for request, count in tokens.items():
            for table in request.tables:
                assert set(table.blocks) <= set(range(self.blocks))
                assert len(table.blocks) * self.block_tokens >= request.computed_tokens + count
        past = {request.computed_tokens for request in tokens}
        assert len(past) == len(set(tokens.values())) == 1
        self.steps.append((len(tokens), past.pop(), next(iter(tokens.values()))))
        return StepResult([])


def test_a_cpu_computes_a_prompt_and_a_token() -> None:
    runner = NotingRunner()
    warm_up(runner, is_gpu=False, context_tokens=64, step_requests=8)
    assert runner.steps == [(1, 0, 15), (1, 15, 1)]


def test_a_gpu_computes_every_kind_of_step_that_needs_a_kernel_of_its_own() -> None:
    runner = NotingRunner()
    warm_up(runner, is_gpu=True, context_tokens=2048, step_requests=64)
    assert [count for count, past, _ in runner.steps if past == 15] == [1, 1, 2, 4, 8, 16, 32, 64]
    assert (1, 1500, 100) in runner.steps


def test_no_step_is_longer_than_the_context() -> None:
    runner = NotingRunner()
    warm_up(runner, is_gpu=True, context_tokens=100, step_requests=64)
    assert all(past + tokens <= 100 for _, past, tokens in runner.steps)
