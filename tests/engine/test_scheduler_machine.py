"""Whatever comes in whatever order: every request reads its own text, ends, and leaves nothing.

The model below keeps what a KV cache would: which text was written at each place of each block.
"""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import DataObject, booleans, data, integers, lists, sampled_from

from llm_engine.contract.layer_groups import most_blocks
from llm_engine.scheduling.blocks import BlockPool
from llm_engine.scheduling.plan import Limits, Step
from llm_engine.scheduling.request import Request
from llm_engine.scheduling.scheduler import Scheduler

LONGEST = 24
"""Most tokens of a prompt and its output together."""
WINDOWS: list[tuple[int | None, ...]] = [(None,), (5,), (None, 5), (3, None, None), (2, 7)]


@dataclass
class Life:
    """What the engine would know of a request.

    began_step  the step before which it came
    before      tokens of all requests that may go first: those running or more urgent
    """

    output_tokens: int
    began_step: int
    before: int


class SchedulerMachine(RuleBasedStateMachine):
    """Submits, steps, aborts and fails at random, and keeps a memory of its own."""

    @initialize(
        windows=sampled_from(WINDOWS),
        block_tokens=sampled_from([1, 2, 4]),
        spare_blocks=integers(0, 4),
        step_tokens=integers(7, 20),
        prefill_tokens=sampled_from([None, 1, 5]),
        reserve_tokens=sampled_from([0, 0, 0, 4]),
        keeps_prefixes=sampled_from([True, True, True, False]),
    )
    def start(
        self,
        windows: tuple[int | None, ...],
        block_tokens: int,
        spare_blocks: int,
        step_tokens: int,
        prefill_tokens: int | None,
        reserve_tokens: int,
        keeps_prefixes: bool,
    ) -> None:
        self.windows, self.block_tokens = windows, block_tokens
        self.limits = Limits(step_tokens, 6, prefill_tokens, reserve_tokens)
        # As the engine promises: one request of the longest context always fits.
        one = sum(most_blocks(w, LONGEST, step_tokens, block_tokens) for w in windows)
        self.scheduler = Scheduler(BlockPool(one + spare_blocks, keeps_prefixes))
        self.lives: dict[Request, Life] = {}
        self.texts: list[list[int]] = [[], [1] * 9, [1, 2] * 6]
        self.memory: dict[tuple[int, int], tuple[int, str, tuple[int, ...]]] = {}
        self.steps = 0

    @rule(
        choices=data(),
        tail=lists(integers(0, 1), min_size=1, max_size=5),
        output_tokens=integers(1, 12),
        priority=integers(-1, 1),
        salt=sampled_from(["", "", "other"]),
        reads_prefixes=sampled_from([True, True, True, False]),
    )
    def submit(
        self,
        choices: DataObject,
        tail: list[int],
        output_tokens: int,
        priority: int,
        salt: str,
        reads_prefixes: bool,
    ) -> None:
        """Continue a text that others may have begun with, or a finished conversation."""
        text: list[int] = choices.draw(sampled_from(self.texts))
        prompt = [*text, *tail][: LONGEST - output_tokens]
        request = Request(
            str(len(self.lives)),
            prompt,
            self.block_tokens,
            self.windows,
            most_output=output_tokens,
            priority=priority,
            salt=salt,
            reads_prefixes=reads_prefixes,
        )
        self.scheduler.add(request)
        life = self.lives[request] = Life(output_tokens, self.steps, LONGEST)
        for other in self.lives:
            if other is request:
                continue
            if other in self.scheduler.running or other.rank < request.rank:
                life.before += LONGEST
            if request.rank < other.rank:
                self.lives[other].before += LONGEST
        assert life.before >= len(prompt)

    @precondition(lambda self: self.lives)
    @rule(count=integers(1, 6))
    def step(self, count: int) -> None:
        for _ in range(count):
            if self.lives:
                step = self.begin_step()
                self.compute(step)
                self.scheduler.end_step(step.tokens)
                self.sample(step)
                self.check_books()

    @precondition(lambda self: self.lives)
    @rule(writes=booleans())
    def failed_step(self, writes: bool) -> None:
        """Begin a step that breaks before or after it wrote: all who ran end with an error."""
        step = self.begin_step()
        if writes:
            self.compute(step)
        for request in list(self.scheduler.running):
            self.end(request)

    @precondition(lambda self: self.lives)
    @rule(choices=data())
    def abort(self, choices: DataObject) -> None:
        free = self.scheduler.pool.free_blocks
        request = choices.draw(sampled_from(list(self.lives)))
        own = {b for b in request.held if self.scheduler.pool.owners(b) == 1}
        self.end(request)
        assert self.scheduler.pool.free_blocks == free + len(own)

    def begin_step(self) -> Step:
        before = [*self.scheduler.running]
        step = self.scheduler.begin_step(self.limits)
        self.steps += 1
        TAKEN["preempted"] += len(step.evicted)
        assert step.tokens, "nobody moves"
        assert min(step.tokens.values()) >= 1
        assert sum(step.tokens.values()) <= self.limits.step_tokens
        assert len(self.scheduler.running) <= self.limits.step_requests
        assert not (before and before[0] in step.evicted), "the most urgent lost its blocks"
        for request in self.scheduler.running:
            for table in request.tables:
                assert len(table.blocks) <= most_blocks(
                    table.window_tokens, LONGEST, self.limits.step_tokens, self.block_tokens
                )
        for request in self.lives:
            waited = self.steps - self.lives[request].began_step
            assert waited <= 2 * self.lives[request].before, "starved"
        return step

    def compute(self, step: Step) -> None:
        """Write as the layers do, all requests first; then read all that each token sees."""
        pool = self.scheduler.pool
        for request, count in step.tokens.items():
            for position in range(request.computed_tokens, request.computed_tokens + count):
                for group in range(len(self.windows)):
                    place = self.place(request, group, position)
                    assert pool.owners(place[0]) == 1, "a shared block is written"
                    self.memory[place] = self.written(request, group, position)
        for request, count in step.tokens.items():
            end = request.computed_tokens + count
            for group, window in enumerate(self.windows):
                first = 0
                if window is not None:
                    first = max(0, request.computed_tokens + 1 - window)
                for position in range(first, end):
                    place = self.place(request, group, position)
                    expected = self.written(request, group, position)
                    assert self.memory[place] == expected, "a request reads another's text"

    def place(self, request: Request, group: int, position: int) -> tuple[int, int]:
        table = request.tables[group]
        number = position // self.block_tokens - table.released
        assert number >= 0, "a token looks at a block that was given back"
        return table.blocks[number], position % self.block_tokens

    def written(
        self, request: Request, group: int, position: int
    ) -> tuple[int, str, tuple[int, ...]]:
        return group, request.salt, tuple(request.tokens[: position + 1])

    def sample(self, step: Step) -> None:
        for request in [r for r in step.tokens if r.tokens_behind == 0]:
            # The same text goes on in the same way, so that whole answers are found again.
            request.tokens.append(sum(request.tokens) % 2)
            if request.output_tokens == self.lives[request].output_tokens:
                self.texts = [*self.texts[-5:], request.tokens]
                self.end(request)

    def end(self, request: Request) -> None:
        self.scheduler.remove(request)
        del self.lives[request]
        assert not [*request.held]

    @invariant()
    def check_books(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        scheduler, pool = self.scheduler, self.scheduler.pool
        known = [*scheduler.running, *scheduler.waiting]
        assert set(known) == self.lives.keys()
        assert len(known) == len(self.lives)
        for requests in (scheduler.running, scheduler.waiting):
            assert requests == sorted(requests, key=lambda r: r.rank)
        assert not any([*request.held] for request in scheduler.waiting)
        owners = Counter(block for request in known for block in request.held)
        assert [pool.owners(b) for b in range(pool.blocks)] == [
            owners[b] for b in range(pool.blocks)
        ]
        assert pool.free_blocks == pool.blocks - len(owners)
        assert pool.usage == pytest.approx(len(owners) / pool.blocks)

    def teardown(self) -> None:
        """Let all that is left come to its end: nothing may be stuck, nothing may stay."""
        if not hasattr(self, "scheduler"):
            return
        while self.lives:
            step = self.begin_step()
            self.compute(step)
            self.scheduler.end_step(step.tokens)
            self.sample(step)
            self.check_books()
        assert self.scheduler.pool.usage == 0.0
        TAKEN["steps"] += self.steps
        TAKEN["found"] += self.scheduler.found_tokens


TAKEN: Counter[str] = Counter()
"""What all examples together did."""


@pytest.mark.timeout(600)  # for a machine with much else to do
def test_ten_thousand_steps_of_random_traffic() -> None:
    TAKEN.clear()
    SchedulerMachine.TestCase.settings = settings(max_examples=250, stateful_step_count=60)
    SchedulerMachine.TestCase().runTest()
    assert TAKEN["steps"] >= 10_000
    assert TAKEN["found"] >= 2_000
    assert TAKEN["preempted"] >= 50
