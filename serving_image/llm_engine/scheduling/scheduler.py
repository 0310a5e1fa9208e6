"""The requests that wait and run, and the blocks that they hold, from step to step."""

from bisect import insort
from collections.abc import Mapping
from typing import Final

from llm_engine.scheduling.blocks import BlockPool
from llm_engine.scheduling.plan import Limits, Step, Victim, least_computed, plan_step
from llm_engine.scheduling.prefix import Prefix
from llm_engine.scheduling.request import Request

STEPS_PER_PRIORITY: Final = 100
"""How many steps earlier a request would have to come to be as urgent as one whose priority is
lower by one: whoever waits for long enough goes first, so nobody waits for ever."""


class Scheduler:
    """Plans each step and keeps the books. Whoever computes calls `begin_step`, then `end_step`.

    running, waiting  most urgent first
    pool              the blocks of the KV cache
    queried_tokens    tokens of admitted prompts, all of which might have been computed before
    found_tokens      those that were
    """

    def __init__(self, pool: BlockPool, choose_victim: Victim = least_computed) -> None:
        self.pool = pool
        self.running: list[Request] = []
        self.waiting: list[Request] = []
        self.queried_tokens = 0
        self.found_tokens = 0
        self._choose_victim = choose_victim
        self._steps = 0
        self._arrivals = 0

    def add(self, request: Request) -> None:
        """Queue a request behind all that are at least as urgent."""
        self._arrivals += 1
        urgency = self._steps + STEPS_PER_PRIORITY * request.priority
        request.rank = (urgency, self._arrivals)
        insort(self.waiting, request, key=_rank)

    def remove(self, request: Request) -> None:
        """Let go of a request, wherever it is, and of its blocks."""
        self.pool.release(request.restart())
        (self.running if request in self.running else self.waiting).remove(request)

    def begin_step(self, limits: Limits) -> Step:
        """Plan a step and take the blocks for it."""
        self._steps += 1
        step = plan_step(self.running, self.waiting, self.pool, limits, self._choose_victim)
        for request in step.evicted:
            self.remove(request)
            insort(self.waiting, request, key=_rank)
        # All that was found is taken hold of before anything else is taken, or it might be that.
        for request, prefix in step.admitted.items():
            self._admit(request, prefix)
        for request, count in step.tokens.items():
            wanted = request.blocks_to_add(count) // len(request.tables)
            if wanted:
                for table in request.tables:
                    table.blocks += self.pool.take(wanted)
        return step

    def end_step(self, tokens: Mapping[Request, int]) -> int:
        """Note these tokens as computed; return how many of them had been computed before."""
        recomputed = 0
        for request, count in tokens.items():
            whole_before = request.computed_tokens // request.block_tokens
            recomputed += request.advance(count)
            if request.computed_tokens // request.block_tokens > whole_before:
                self._remember(request, whole_before)
            self.pool.release(request.slide())
        return recomputed

    def _admit(self, request: Request, prefix: Prefix) -> None:
        self.waiting.remove(request)
        insort(self.running, request, key=_rank)
        self.pool.share(prefix.blocks)
        if self.pool.keeps_prefixes and request.found_tokens is None:
            self.queried_tokens += request.prompt_tokens
            self.found_tokens += prefix.tokens
        request.begin(prefix)

    def _remember(self, request: Request, whole_before: int) -> None:
        for number in range(whole_before, request.computed_tokens // request.block_tokens):
            for group, table in enumerate(request.tables):
                block = table.blocks[number - table.released]
                self.pool.remember(block, (group, request.digests[number]))


def _rank(request: Request) -> tuple[int, int]:
    return request.rank
