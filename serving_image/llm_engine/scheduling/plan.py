"""Share one step's token budget among the requests: chunked prefill and decode in one batch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llm_engine.scheduling.request import Request


@dataclass(frozen=True)
class Limits:
    """What one step may do.

    step_tokens     tokens computed in one step, over all requests
    step_requests   requests that run at the same time
    prefill_tokens  prompt tokens in a step that also decodes, so that running streams keep
                    their time per token; None: as many as the budget holds
    """

    step_tokens: int
    step_requests: int
    prefill_tokens: int | None = None

    def __post_init__(self) -> None:
        # One token to spare means that the oldest request moves in every step.
        if self.step_tokens <= self.step_requests:
            raise ValueError(
                f"step_tokens {self.step_tokens} must exceed step_requests {self.step_requests}"
            )
        if self.prefill_tokens is not None and self.prefill_tokens < 1:
            raise ValueError(f"prefill_tokens {self.prefill_tokens} must be at least 1")


@dataclass(frozen=True)
class Step:
    """What to compute, and who loses its blocks first.

    tokens   tokens to compute per request: running ones and newly admitted ones
    evicted  running requests to preempt, newest first; they start over later
    """

    tokens: Mapping[Request, int]
    evicted: tuple[Request, ...]


def plan_step(
    running: Sequence[Request], waiting: Iterable[Request], free_blocks: int, limits: Limits
) -> Step:
    """Plan one step over requests given oldest first. Changes none of its arguments.

    A request is only ever some tokens behind: a new prompt by all of them, a decoding request by
    one. Those one token behind come first, since somebody reads them as they appear; the rest of
    the budget goes to prompts, oldest first. When blocks run out, the newest running request loses
    its own and starts over, so the oldest always gets through.
    """
    share = _Share(list(running), free_blocks, limits)
    for request in running:
        if request.is_decoding:
            share.grant(request, 1)
    if share.tokens and limits.prefill_tokens is not None:
        share.budget = min(share.budget, limits.prefill_tokens)
    for request in running:
        if not request.is_decoding:
            share.grant(request, request.tokens_behind)
    if not share.evicted:
        _admit(share, waiting, limits)
    # Whoever was evicted after getting its share computes nothing.
    tokens = {r: count for r, count in share.tokens.items() if r not in share.evicted}
    return Step(tokens, tuple(share.evicted))


class _Share:
    """The budget while it is being shared out."""

    def __init__(self, kept: list[Request], free_blocks: int, limits: Limits) -> None:
        self.kept = kept
        self.free_blocks = free_blocks
        self.budget = limits.step_tokens
        self.tokens: dict[Request, int] = {}
        self.evicted: list[Request] = []

    def grant(self, request: Request, wanted: int) -> None:
        """Give up to `wanted` tokens, evicting newer requests while blocks are short."""
        count = min(wanted, self.budget)
        if count == 0 or request in self.evicted:
            return
        while request.blocks_to_add(count) > self.free_blocks:
            newest = self.kept.pop()
            self.evicted.append(newest)
            self._take_back(newest)
            if newest is request:
                return
        self.tokens[request] = count
        self.budget -= count
        self.free_blocks -= request.blocks_to_add(count)

    def _take_back(self, request: Request) -> None:
        count = self.tokens.pop(request, 0)
        self.budget += count
        self.free_blocks += request.blocks_held + request.blocks_to_add(count)


def _admit(share: _Share, waiting: Iterable[Request], limits: Limits) -> None:
    """Admit waiting requests, first come first served: nobody overtakes."""
    # Blocks that admitted prompts still have to take, and one for each stream to grow into:
    # without them a new request would only push out the one before it.
    promised = sum(
        request.blocks_to_add(request.tokens_behind)
        - request.blocks_to_add(share.tokens.get(request, 0))
        for request in share.kept
    )
    for request in waiting:
        count = min(request.tokens_behind, share.budget)
        needed = request.blocks_to_add(request.tokens_behind)
        reserve = len(share.kept)
        is_full = len(share.kept) >= limits.step_requests
        if count == 0 or is_full or needed + promised + reserve > share.free_blocks:
            return
        share.kept.append(request)
        share.grant(request, count)
        promised += needed - request.blocks_to_add(count)
