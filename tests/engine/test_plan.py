"""The step planner: never over budget, never over the blocks, nobody waits for ever."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis.strategies import builds, integers, lists, none, one_of, tuples

from llm_engine.scheduling.blocks import BlockPool
from llm_engine.scheduling.plan import Limits, Step, plan_step
from llm_engine.scheduling.request import Request

BLOCK_TOKENS = 4


def a_request(
    prompt: int = 8, *, output: int = 0, computed: int = 0, blocks: int | None = None
) -> Request:
    request = Request("r", [1] * prompt, BLOCK_TOKENS)
    request.tokens += [2] * output
    request.computed_tokens = computed
    held = -(-computed // BLOCK_TOKENS) if blocks is None else blocks
    request.tables[0].blocks = list(range(held))
    return request


def decoding(context: int = 8) -> Request:
    return a_request(context, output=1, computed=context)


LIMITS = Limits(step_tokens=16, step_requests=4)


def test_a_prompt_longer_than_the_budget_is_computed_in_chunks() -> None:
    request = a_request(40)
    assert plan_step([], [request], 100, LIMITS).tokens == {request: 16}


def test_decoding_streams_come_before_an_older_prompt() -> None:
    prompt, stream = a_request(40, computed=16), decoding()
    step = plan_step([prompt, stream], [], 100, LIMITS)
    assert step.tokens == {stream: 1, prompt: 15}


def test_prefill_beside_streams_is_paced() -> None:
    prompt, stream = a_request(40), decoding()
    paced = Limits(step_tokens=16, step_requests=4, prefill_tokens=3)
    assert plan_step([stream], [prompt], 100, paced).tokens == {stream: 1, prompt: 3}


def test_prefill_without_streams_is_not_paced() -> None:
    prompt = a_request(40)
    paced = Limits(step_tokens=16, step_requests=4, prefill_tokens=3)
    assert plan_step([], [prompt], 100, paced).tokens == {prompt: 16}


def test_nobody_overtakes_the_first_that_waits() -> None:
    big, small = a_request(40), a_request(1)
    assert plan_step([decoding()], [big, small], 5, LIMITS).tokens.keys().isdisjoint({big, small})


def test_a_request_is_admitted_only_with_room_for_its_whole_prompt() -> None:
    # 40 tokens need 10 blocks; a first chunk of 16 would fit into 9, and then be stuck.
    assert plan_step([], [a_request(40)], 9, LIMITS).tokens == {}


def test_admission_leaves_what_running_prompts_still_need() -> None:
    half = a_request(40, computed=16)  # 24 tokens to go: 6 more blocks
    newcomer = a_request(4)
    assert newcomer not in plan_step([half], [newcomer], 7, LIMITS).tokens
    wide = Limits(step_tokens=64, step_requests=4)
    assert newcomer in plan_step([half], [newcomer], 8, wide).tokens


def test_out_of_blocks_the_newest_starts_over() -> None:
    old, new = decoding(8), decoding(8)
    step = plan_step([old, new], [], 0, LIMITS)
    assert step == Step({old: 1}, (new,))


def test_the_newest_gives_way_itself_when_it_is_the_one_in_need() -> None:
    old, new = decoding(6), decoding(8)
    step = plan_step([old, new], [], 0, LIMITS)
    assert step == Step({old: 1}, (new,))


def test_nobody_is_admitted_in_a_step_that_evicts() -> None:
    step = plan_step([decoding(8), decoding(8)], [a_request(1)], 0, LIMITS)
    assert len(step.tokens) == 1


def test_no_more_requests_run_than_the_limit() -> None:
    waiting = [a_request(1) for _ in range(6)]
    assert len(plan_step([], waiting, 100, LIMITS).tokens) == 4


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
    assert request.blocks_held == 7


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
    pool = BlockPool(POOL_BLOCKS)
    coming = [(Request(str(n), [0] * prompt, BLOCK_TOKENS), out) for n, (prompt, out) in
              enumerate(lengths)]  # fmt: skip
    wanted = dict(coming)
    running: list[Request] = []
    waiting: list[Request] = []
    ended: list[Request] = []
    for _ in range(10_000):
        # They arrive while others run, a few at a time.
        waiting += [request for request, _ in coming[: together + 1]]
        coming = coming[together + 1 :]
        if not running and not waiting:
            break
        before = copy.deepcopy((running, waiting))
        step = plan_step(running, waiting, pool.free_blocks, limits)
        assert [vars(r) for rs in before for r in rs] == [
            vars(r) for rs in (running, waiting) for r in rs
        ]
        assert step.tokens, "nobody moves"
        assert sum(step.tokens.values()) <= limits.step_tokens
        oldest = min((*running, *waiting), key=lambda r: int(r.request_id))
        assert oldest in step.tokens, "the oldest must always move"
        for request in step.evicted:
            pool.release(request.restart())
            running.remove(request)
            waiting.insert(0, request)
        for request, count in step.tokens.items():
            if request in waiting:
                assert request is waiting.pop(0), "somebody overtook"
                running.append(request)
            request.tables[0].blocks += pool.take(request.blocks_to_add(count))
            request.advance(count)
            if request.tokens_behind == 0:
                request.tokens.append(0)
        assert len(running) <= limits.step_requests
        held = [block for request in running for block in request.tables[0].blocks]
        assert len(held) == len(set(held)) == pool.blocks - pool.free_blocks
        for request in [r for r in running if r.output_tokens >= wanted[r]]:
            pool.release(request.restart())
            running.remove(request)
            ended.append(request)
    assert len(ended) == len(lengths)
    assert pool.free_blocks == POOL_BLOCKS
