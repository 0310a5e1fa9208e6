"""What a planned step computes, in plain numbers: enough for a rank that knows no requests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llm_engine.attention.batch import GroupTables, StepBatch
from llm_engine.sampling.choice import Score
from llm_engine.scheduling.request import Request


@dataclass(frozen=True)
class StepInputs:
    """One step.

    ids           the tokens to compute, request by request
    rows          rows whose logits are wanted: of the next tokens, then of those to be scored
    sampled_rows  how many of them are for next tokens
    """

    ids: list[int]
    rows: list[int]
    sampled_rows: int
    batch: StepBatch


def step_inputs(
    tokens: Mapping[Request, int],
    scores: Sequence[Score],
    windows: tuple[int | None, ...],
    block_tokens: int,
) -> StepInputs:
    """Return what computing these many tokens of each request takes, and scoring some of them."""
    starts = [0]
    ids: list[int] = []
    sampled: list[int] = []
    for request, count in tokens.items():
        ids += request.tokens[request.computed_tokens : request.computed_tokens + count]
        starts.append(len(ids))
        if count == request.tokens_behind:
            sampled.append(len(ids) - 1)
    batch = StepBatch(
        query_starts=tuple(starts),
        context_tokens=tuple(r.computed_tokens + count for r, count in tokens.items()),
        groups=tuple(
            GroupTables(
                window_tokens=window,
                released=tuple(request.tables[group].released for request in tokens),
                blocks=tuple(request.tables[group].blocks for request in tokens),
            )
            for group, window in enumerate(windows)
        ),
        block_tokens=block_tokens,
    )
    computed = [request.computed_tokens for request in tokens]
    scored = [
        starts[score.order] + position - 1 - computed[score.order]
        for score in scores
        for position in score.positions
    ]
    return StepInputs(ids, sampled + scored, len(sampled), batch)
