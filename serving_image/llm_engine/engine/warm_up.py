"""Steps that nobody asked for, so that no user pays for the first use of anything."""

from dataclasses import dataclass
from typing import Final

from llm_engine.engine.loaded import StepRunner
from llm_engine.scheduling.request import Request


@dataclass(frozen=True)
class WarmUp:
    """One step: requests that each compute `tokens` more, behind so many."""

    requests: int
    past_tokens: int
    tokens: int


CPU_STEPS: Final = (WarmUp(1, 0, 15), WarmUp(1, 15, 1))
GRAPH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, *range(96, 1024, 32))
"""Rows of decoding steps that are captured as graphs; others are filled up to the next."""
GPU_STEPS: Final = (
    # A Triton kernel is compiled when it is first used, in up to 2 s: once for decoding requests
    # and once for prompts, each with keys in splits (few requests, long texts) and without.
    *CPU_STEPS,
    WarmUp(1, 1500, 1),
    *(WarmUp(size, 15, 1) for size in GRAPH_SIZES),
    WarmUp(1, 0, 500),
    WarmUp(1, 1500, 100),
)


def warm_up(runner: StepRunner, is_gpu: bool, context_tokens: int, step_requests: int) -> None:
    """Compute the steps that this context and so many requests allow."""
    for step in GPU_STEPS if is_gpu else CPU_STEPS:
        fits = step.past_tokens + step.tokens <= context_tokens
        if fits and step.requests <= step_requests:
            runner.run(_requests(runner, step), [])


def _requests(runner: StepRunner, step: WarmUp) -> dict[Request, int]:
    """Return requests that all write to the first blocks: what is there is never read."""
    length = step.past_tokens + step.tokens
    requests = {}
    for number in range(step.requests):
        request = Request(str(number), [0] * length, runner.block_tokens, runner.windows)
        request.computed_tokens = step.past_tokens
        for group, table in enumerate(request.tables):
            table.blocks = [group] * -(-length // runner.block_tokens)
        requests[request] = step.tokens
    return requests
