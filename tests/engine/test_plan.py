"""The step planner: never over budget, never over the blocks, nobody waits for ever."""

import copy
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis.strategies import builds, integers, lists, none, one_of, tuples

from llm_engine.scheduling.blocks import BlockPool
from llm_engine.scheduling.plan import Limits, Step, plan_step
from llm_engine.scheduling.request import Request
from llm_engine.scheduling.scheduler import STEPS_PER_PRIORITY, Scheduler

BLOCK_TOKENS = 4


def a_request(
    prompt: int = 8, *, output: int = 0, computed: int = 0, priority: int = 0, most_output: int = 0
) -> Request:
    request = Request("r", [1] * prompt, BLOCK_TOKENS, most_output=most_output, priority=priority)
    request.tokens += [2] * output
    request.computed_tokens = computed
    return request


def decoding(context: int = 8, *, priority: int = 0, most_output: int = 0) -> Request:
    return a_request(
        context, output=1, computed=context, priority=priority, most_output=most_output
    )


def plan(
    running: Sequence[Request], waiting: Sequence[Request], free_blocks: int, limits: Limits
) -> Step:
    """Plan with a pool where the running ones hold what they need, and so much is free."""
    held = [-(-request.computed_tokens // BLOCK_TOKENS) for request in running]
    pool = BlockPool(max(1, sum(held) + free_blocks))
    for turn, (request, count) in enumerate(zip(running, held, strict=True)):
        request.tables[0].blocks = pool.take(count)
        request.rank = (turn, turn)
    return plan_step(running, waiting, pool, limits)


LIMITS = Limits(step_tokens=16, step_requests=4)


def test_a_prompt_longer_than_the_budget_is_computed_in_chunks() -> None:
    request = a_request(40)
    assert plan([], [request], 100, LIMITS).tokens == {request: 16}


def test_a_short_prompt_gets_through_beside_a_long_one() -> None:
    long, short, other = a_request(400), a_request(3), a_request(5)
    assert plan([], [long, short, other], 200, LIMITS).tokens == {long: 12, short: 3, other: 1}
    assert plan([long], [short], 200, LIMITS).tokens == {long: 13, short: 3}


def test_a_long_prompt_gets_what_others_cannot_use() -> None:
    long, too_long = a_request(40), a_request(400)
    assert plan([], [long, too_long], 20, LIMITS).tokens == {long: 16}


def test_decoding_streams_come_before_an_older_prompt() -> None:
    prompt, stream = a_request(40, computed=16), decoding()
    step = plan([prompt, stream], [], 100, LIMITS)
    assert step.tokens == {stream: 1, prompt: 15}


def test_prefill_beside_streams_is_paced() -> None:
    prompt, stream = a_request(40), decoding()
    paced = Limits(step_tokens=16, step_requests=4, prefill_tokens=3)
    assert plan([stream], [prompt], 100, paced).tokens == {stream: 1, prompt: 3}


def test_prefill_without_streams_is_not_paced() -> None:
    prompt = a_request(40)
    paced = Limits(step_tokens=16, step_requests=4, prefill_tokens=3)
    assert plan([], [prompt], 100, paced).tokens == {prompt: 16}


def test_nobody_overtakes_the_first_that_waits() -> None:
    big, small = a_request(40), a_request(1)
    assert plan([decoding()], [big, small], 5, LIMITS).tokens.keys().isdisjoint({big, small})


def test_a_request_is_admitted_only_with_room_for_its_whole_prompt() -> None:
    # 40 tokens need 10 blocks; a first chunk of 16 would fit into 9, and then be stuck.
    assert plan([], [a_request(40)], 9, LIMITS).tokens == {}


def test_admission_leaves_what_running_prompts_still_need() -> None:
    half = a_request(40, computed=16)  # 24 tokens to go: 6 more blocks
    newcomer = a_request(4)
    assert newcomer not in plan([half], [newcomer], 6, LIMITS).tokens
    assert newcomer in plan([half], [newcomer], 7, LIMITS).tokens


def test_out_of_blocks_the_request_with_the_least_computed_starts_over() -> None:
    first, much, little, last = decoding(8), decoding(16), decoding(8), decoding(12)
    step = plan([first, much, little, last], [], 1, LIMITS)
    assert step.evicted == (little,)
    assert step.tokens == {first: 1, much: 1, last: 1}


def test_of_equals_the_last_in_turn_starts_over() -> None:
    running = [decoding(8) for _ in range(3)]
    assert plan(running, [], 1, LIMITS).evicted == (running[2],)


def test_the_most_urgent_never_starts_over() -> None:
    first, other = decoding(4), decoding(40)
    assert plan([first, other], [], 0, LIMITS) == Step({first: 1}, (other,), {})


def test_the_less_urgent_give_way_before_those_that_lose_less() -> None:
    first, urgent, patient = decoding(8), decoding(8), decoding(40, priority=1)
    assert plan([first, urgent, patient], [], 0, LIMITS).evicted == (patient,)


def test_the_one_in_need_gives_way_itself_when_it_loses_least() -> None:
    old, new = decoding(6), decoding(4)
    step = plan([old, new], [], 0, LIMITS)
    assert step == Step({old: 1}, (new,), {})


def test_giving_way_frees_no_block_that_others_share() -> None:
    first, sharing, big = decoding(8), decoding(8), decoding(16)
    pool = BlockPool(8)
    first.tables[0].blocks = pool.take(2)
    pool.share(first.tables[0].blocks)
    sharing.tables[0].blocks = list(first.tables[0].blocks)
    big.tables[0].blocks = pool.take(4)
    pool.take(2)
    assert plan_step([first, sharing, big], [], pool, LIMITS).evicted == (sharing, big)


def test_nobody_is_admitted_in_a_step_that_evicts() -> None:
    step = plan([decoding(8), decoding(8)], [a_request(1)], 0, LIMITS)
    assert len(step.tokens) == 1


def test_a_request_is_admitted_only_while_those_that_run_can_still_grow() -> None:
    limits = Limits(step_tokens=16, step_requests=4, reserve_tokens=8)
    stream, newcomer = decoding(8, most_output=100), a_request(8)
    # The stream has a token to compute, and 8 more to grow: 17 tokens in 5 blocks, so 3 more.
    assert newcomer not in plan([stream], [newcomer], 4, limits).tokens
    assert newcomer in plan([stream], [newcomer], 5, limits).tokens


def test_nothing_is_reserved_for_tokens_beyond_the_most_that_were_asked_for() -> None:
    limits = Limits(step_tokens=16, step_requests=4, reserve_tokens=8)
    stream, newcomer = decoding(8, most_output=2), a_request(8)
    assert newcomer in plan([stream], [newcomer], 3, limits).tokens


def test_no_more_requests_run_than_the_limit() -> None:
    waiting = [a_request(1) for _ in range(6)]
    assert len(plan([], waiting, 100, LIMITS).tokens) == 4


@pytest.mark.parametrize("numbers", [{"step_tokens": 4}, {"prefill_tokens": 0}], ids=str)
def test_limits_that_could_stop_everything_are_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        Limits(**{"step_tokens": 16, "step_requests": 4, **numbers})


def test_what_is_computed_again_is_counted_once() -> None:
    request = a_request(10)
    assert request.advance(10) == 0
    request.restart()
    assert request.advance(6) == 6
    assert request.advance(4) == 4
    assert request.advance(1) == 0


def test_a_windowed_group_gives_back_what_slid_out_of_its_window() -> None:
    request = Request("r", [1] * 40, BLOCK_TOKENS, windows=(None, 6))
    for table in request.tables:
        table.blocks = list(range(5))
    request.computed_tokens = 17
    # Token 17 sees 12 to 17 through the window: blocks 0 to 2 hold 0 to 11.
    assert request.slide() == [0, 1, 2]
    assert request.tables[1].blocks == [3, 4]
    assert request.slide() == []
    # Both tables reach as far as the text: up to token 23, and so to block 5.
    assert request.blocks_to_add(7) == 2
    assert len([*request.held]) == 7


def test_of_a_long_prompt_a_windowed_group_promises_only_its_window_and_a_chunk() -> None:
    request = Request("r", [1] * 400, BLOCK_TOKENS, windows=(6,))
    limits = Limits(step_tokens=16, step_requests=4)
    # 6 + 16 tokens fill 5.5 blocks, and may begin in the middle of one.
    assert plan([], [request], 7, limits).tokens == {request: 16}
    assert plan([], [request], 6, limits).tokens == {}


def test_a_stream_behind_a_window_keeps_no_room_for_prompts() -> None:
    limits = Limits(step_tokens=16, step_requests=4)
    stream = Request("r", [1] * 40, BLOCK_TOKENS, windows=(6,), most_output=100)
    stream.tokens += [2]
    stream.computed_tokens = 40
    stream.tables[0].released = 8
    pool = BlockPool(5)
    stream.tables[0].blocks = pool.take(2)
    # It holds tokens 32 to 39, and grows by one block at most: 6 + 1 tokens may touch three.
    newcomer = a_request(8)
    assert newcomer in plan_step([stream], [newcomer], pool, limits).tokens


def test_the_more_urgent_goes_first_and_waiting_makes_urgent() -> None:
    scheduler = Scheduler(BlockPool(10))
    limits = Limits(step_tokens=16, step_requests=1)
    blocker = a_request(4)
    scheduler.add(blocker)
    scheduler.begin_step(limits)
    patient, usual, urgent = (a_request(4, priority=priority) for priority in (1, 0, -1))
    for request in (patient, usual, urgent):
        scheduler.add(request)
    assert scheduler.waiting == [urgent, usual, patient]
    for _ in range(STEPS_PER_PRIORITY + 1):
        scheduler.begin_step(limits)
    late = a_request(4, priority=0)
    scheduler.add(late)
    assert scheduler.waiting == [urgent, usual, patient, late]


limits = builds(
    lambda requests, spare, pace: Limits(requests + spare, requests, pace),
    integers(1, 6),
    integers(1, 20),
    one_of(none(), integers(1, 8)),
)
POOL_BLOCKS = 10
# A prompt and an output that fit the pool together: the engine takes no others in.
asked = tuples(integers(1, 30), integers(1, 10))


@settings(max_examples=150, deadline=None)
@given(lists(asked, min_size=1, max_size=12), limits, integers(0, 5))
def test_every_request_ends_and_no_step_breaks_a_limit(
    lengths: list[tuple[int, int]], limits: Limits, together: int
) -> None:
    """Run the planner as the engine does, with an imaginary model, until all have ended."""
    scheduler = Scheduler(BlockPool(POOL_BLOCKS))
    pool = scheduler.pool
    coming = [(Request(str(n), [0] * prompt, BLOCK_TOKENS, most_output=out), out)
              for n, (prompt, out) in enumerate(lengths)]  # fmt: skip
    wanted = dict(coming)
    ended: list[Request] = []
    for _ in range(10_000):
        # They arrive while others run, a few at a time.
        for request, _ in coming[: together + 1]:
            scheduler.add(request)
        coming = coming[together + 1 :]
        known = [*scheduler.running, *scheduler.waiting]
        if not known:
            break
        before = copy.deepcopy([vars(request) for request in known])
        planned = plan_step(scheduler.running, scheduler.waiting, pool, limits)
        assert before == [vars(request) for request in known], "planning changed a request"
        step = scheduler.begin_step(limits)
        assert step == planned
        assert step.tokens, "nobody moves"
        assert sum(step.tokens.values()) <= limits.step_tokens
        assert min(known, key=lambda r: r.rank) in step.tokens, "the oldest must always move"
        assert len(scheduler.running) <= limits.step_requests
        scheduler.end_step(step.tokens)
        for request in [r for r in step.tokens if r.tokens_behind == 0]:
            request.tokens.append(0)
            if request.output_tokens >= wanted[request]:
                scheduler.remove(request)
                ended.append(request)
    assert len(ended) == len(lengths)
    assert pool.free_blocks == POOL_BLOCKS
