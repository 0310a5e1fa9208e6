"""Share one step's token budget among the requests: chunked prefill and decode in one batch."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from llm_engine.scheduling.blocks import BlockPool
from llm_engine.scheduling.prefix import Prefix, longest_prefix
from llm_engine.scheduling.request import Request

LEFT_TO_OTHERS: Final = 4
"""A prompt that could use up the budget leaves one part of so many to the prompts behind it: short
ones get through beside a long one, which takes a third longer at most."""

Victim = Callable[[Sequence[Request]], Request]
"""Which of these requests, most urgent first, loses its blocks when there are too few."""


@dataclass(frozen=True)
class Limits:
    """What one step may do.

    step_tokens     tokens computed in one step, over all requests
    step_requests   requests that run at the same time
    prefill_tokens  prompt tokens in a step that also decodes, so that running streams keep
                    their time per token; None: as many as the budget holds
    reserve_tokens  a request is admitted only while everyone that runs can still grow by so many
                    tokens: blocks that run out again at once would only be computed for nothing
    """

    step_tokens: int
    step_requests: int
    prefill_tokens: int | None = None
    reserve_tokens: int = 32

    def __post_init__(self) -> None:
        # One token to spare means that the most urgent request moves in every step.
        if self.step_tokens <= self.step_requests:
            raise ValueError(
                f"step_tokens {self.step_tokens} must exceed step_requests {self.step_requests}"
            )
        if self.prefill_tokens is not None and self.prefill_tokens < 1:
            raise ValueError(f"prefill_tokens {self.prefill_tokens} must be at least 1")


@dataclass(frozen=True)
class Step:
    """What to compute, who loses its blocks first, and who joins.

    tokens    tokens to compute per request: running ones and newly admitted ones
    evicted   running requests to preempt; they start over later
    admitted  waiting requests that begin to run, and what is already computed of their texts
    """

    tokens: Mapping[Request, int]
    evicted: tuple[Request, ...]
    admitted: Mapping[Request, Prefix]


def least_computed(candidates: Sequence[Request]) -> Request:
    """Choose whose loss costs least: of the least urgent, the one with the fewest tokens computed.

    Between equals it is the one whose turn comes last.
    """
    return max(candidates, key=lambda r: (r.priority, -r.computed_tokens, r.rank))


def plan_step(
    running: Sequence[Request],
    waiting: Sequence[Request],
    pool: BlockPool,
    limits: Limits,
    choose_victim: Victim = least_computed,
) -> Step:
    """Plan one step over requests given most urgent first. Changes none of its arguments.

    A request is only ever some tokens behind: a new prompt by all of them, a decoding request by
    one. Those one token behind come first, since somebody reads them as they appear; the rest of
    the budget goes to prompts, most urgent first, though a long one leaves some to others. When
    blocks run out, a request loses its own and starts over, but never the most urgent one: it
    always gets through, and then another is it.
    """
    share = _Share(running, pool, limits, choose_victim)
    for request in running:
        if request.is_decoding:
            share.grant(request, 1)
    if share.tokens and limits.prefill_tokens is not None:
        share.budget = min(share.budget, limits.prefill_tokens)
    prompts = [request for request in running if not request.is_decoding]
    for number, request in enumerate(prompts, start=1):
        are_others = number < len(prompts) or bool(waiting)
        share.grant(request, share.part(request.tokens_behind, are_others))
    admitted = {} if share.evicted else _admit(share, waiting, pool, limits)
    share.use_up(admitted)
    return Step(share.tokens, tuple(share.evicted), admitted)


class _Share:
    """The budget and the free blocks while they are being shared out."""

    def __init__(
        self, running: Sequence[Request], pool: BlockPool, limits: Limits, choose_victim: Victim
    ) -> None:
        self.kept = list(running)
        self.free_blocks = pool.free_blocks
        self.budget = limits.step_tokens
        self.tokens: dict[Request, int] = {}
        self.evicted: list[Request] = []
        self._pool = pool
        self._choose_victim = choose_victim
        self.found: set[int] = set()  # blocks counted as free that admitted requests will share
        self._let_go: Counter[int] = Counter()  # owners that each block loses by evictions

    def part(self, wanted: int, are_others: bool) -> int:
        """Return how many of these tokens a prompt gets, with other prompts behind it or not."""
        if wanted < self.budget or not are_others:
            return min(wanted, self.budget)
        return self.budget - self.budget // LEFT_TO_OTHERS

    def grant(self, request: Request, wanted: int) -> None:
        """Give up to `wanted` tokens, evicting others or itself while blocks are short."""
        count = min(wanted, self.budget)
        if count == 0 or request in self.evicted:
            return
        blocks = request.blocks_to_add(count)
        while blocks > self.free_blocks:
            victim = self._choose_victim(self.kept[1:])
            self._evict(victim)
            if victim is request:
                return
        self.tokens[request] = count
        self.budget -= count
        self.free_blocks -= blocks

    def admit(self, request: Request, count: int, found: set[int], prefix: Prefix) -> None:
        """Give a waiting request its first tokens, and the free blocks where it begins."""
        self.kept.append(request)
        self.found |= found
        self.tokens[request] = count
        self.budget -= count
        self.free_blocks -= len(found) + request.blocks_to_add(count, prefix)

    def use_up(self, admitted: Mapping[Request, Prefix]) -> None:
        """Give what nobody took to the most urgent of those that could use more."""
        for request, count in self.tokens.items():
            prefix = admitted.get(request)
            computed = request.computed_tokens if prefix is None else prefix.tokens
            more = min(len(request.tokens) - computed - count, self.budget)
            if more <= 0:
                continue
            blocks = request.blocks_to_add(count + more, prefix)
            blocks -= request.blocks_to_add(count, prefix)
            if blocks <= self.free_blocks:
                self.tokens[request] = count + more
                self.budget -= more
                self.free_blocks -= blocks

    def _evict(self, request: Request) -> None:
        self.kept.remove(request)
        self.evicted.append(request)
        count = self.tokens.pop(request, 0)
        self.budget += count
        self.free_blocks += request.blocks_to_add(count)
        for block in request.held:
            self._let_go[block] += 1
            # A block that others share stays theirs.
            if self._let_go[block] == self._pool.owners(block):
                self.free_blocks += 1


def _admit(
    share: _Share, waiting: Sequence[Request], pool: BlockPool, limits: Limits
) -> Mapping[Request, Prefix]:
    """Admit waiting requests, most urgent first: nobody overtakes because it is smaller."""
    admitted: dict[Request, Prefix] = {}
    if not waiting or share.budget == 0 or len(share.kept) >= limits.step_requests:
        return admitted
    # What those that run still have to take until their prompts are computed and they have grown.
    promised = sum(
        request.most_to_add(limits.step_tokens, limits.reserve_tokens)
        - request.blocks_to_add(share.tokens.get(request, 0))
        for request in share.kept
    )
    for number, request in enumerate(waiting, start=1):
        if share.budget == 0 or len(share.kept) >= limits.step_requests:
            break
        prefix = computed_prefix(request, pool)
        if _is_coming(request, prefix, share.kept, pool):
            break
        # Blocks that others hold cost nothing; free ones that are found are free no longer.
        found = {b for b in prefix.blocks if pool.owners(b) == 0} - share.found
        most = request.most_to_add(limits.step_tokens, limits.reserve_tokens, prefix)
        if len(found) + most + promised > share.free_blocks:
            break
        admitted[request] = prefix
        count = share.part(len(request.tokens) - prefix.tokens, number < len(waiting))
        share.admit(request, count, found, prefix)
        promised += most - request.blocks_to_add(count, prefix)
    return admitted


def computed_prefix(request: Request, pool: BlockPool) -> Prefix:
    """Return what the pool still holds of a waiting request's text, all but its last token.

    At least one token is to be computed: the next one is sampled from its result.
    """
    reads = request.reads_prefixes and pool.keeps_prefixes
    whole = (len(request.tokens) - 1) // request.block_tokens if reads else 0
    return longest_prefix(pool, request.digests[:whole], request.windows, request.block_tokens)


def _is_coming(request: Request, prefix: Prefix, kept: Sequence[Request], pool: BlockPool) -> bool:
    """Tell whether somebody ahead is about to compute the block after the prefix: wait for it."""
    number = prefix.tokens // request.block_tokens
    end = prefix.tokens + request.block_tokens
    if not (request.reads_prefixes and pool.keeps_prefixes) or end >= len(request.tokens):
        return False
    return any(
        other.rank < request.rank
        and other.computed_tokens < end
        and other.digests[number : number + 1] == [request.digests[number]]
        for other in kept
    )
