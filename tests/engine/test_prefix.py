"""A prompt is not computed twice: its beginning is found, by those who may, while it is there."""

import pytest

from llm_engine.scheduling.blocks import BlockPool, OutOfBlocks
from llm_engine.scheduling.plan import Limits, computed_prefix
from llm_engine.scheduling.prefix import extend_digests
from llm_engine.scheduling.request import Request
from llm_engine.scheduling.scheduler import Scheduler

BLOCK_TOKENS = 4
LIMITS = Limits(step_tokens=64, step_requests=8)
FULL: tuple[int | None, ...] = (None,)


def a_request(
    tokens: list[int], *, windows: tuple[int | None, ...] = FULL, salt: str = "", reads: bool = True
) -> Request:
    return Request("r", list(tokens), BLOCK_TOKENS, windows, salt=salt, reads_prefixes=reads)


def a_scheduler(blocks: int = 100, *, keeps_prefixes: bool = True) -> Scheduler:
    return Scheduler(BlockPool(blocks, keeps_prefixes))


def compute(scheduler: Scheduler, *requests: Request, output: int = 0) -> None:
    """Compute these requests' prompts, and some tokens more."""
    for request in requests:
        scheduler.add(request)
    for number in range(output + 1):
        step = scheduler.begin_step(LIMITS)
        scheduler.end_step(step.tokens)
        for request in requests:
            assert request.tokens_behind == 0
            if number < output:
                request.tokens.append(7)


def found(scheduler: Scheduler, request: Request) -> int | None:
    """Return how many tokens of its prompt a request finds computed."""
    compute(scheduler, request)
    scheduler.remove(request)
    return request.found_tokens


TEXT = list(range(100, 120))


def test_a_running_request_shares_the_whole_blocks_of_a_common_beginning() -> None:
    scheduler, first, second = a_scheduler(), a_request(TEXT), a_request([*TEXT[:11], 1, 2])
    compute(scheduler, first)
    compute(scheduler, second)
    assert second.found_tokens == 8
    assert second.tables[0].blocks[:2] == first.tables[0].blocks[:2]
    assert [scheduler.pool.owners(block) for block in first.tables[0].blocks] == [2, 2, 1, 1, 1]


def test_what_a_finished_request_computed_is_found_with_its_output() -> None:
    scheduler, first = a_scheduler(), a_request(TEXT[:8])
    compute(scheduler, first, output=5)
    scheduler.remove(first)
    assert scheduler.pool.usage == 0.0
    # 13 tokens were computed: the next turn of a chat finds three whole blocks of them.
    assert found(scheduler, a_request([*first.tokens, 1, 2, 3])) == 12


def test_the_last_token_is_always_computed() -> None:
    scheduler = a_scheduler()
    compute(scheduler, a_request(TEXT))
    assert found(scheduler, a_request(TEXT)) == 16
    assert found(scheduler, a_request([*TEXT, 1])) == 20


def test_another_text_in_the_middle_ends_what_is_found() -> None:
    scheduler = a_scheduler()
    compute(scheduler, a_request(TEXT))
    assert found(scheduler, a_request([*TEXT[:4], 1, *TEXT[5:]])) == 4


def test_the_same_tokens_behind_another_beginning_are_not_found() -> None:
    scheduler = a_scheduler()
    compute(scheduler, a_request(TEXT))
    assert found(scheduler, a_request([1, 2, 3, 4, *TEXT[4:]])) == 0


def test_another_tenant_finds_nothing() -> None:
    scheduler = a_scheduler()
    compute(scheduler, a_request(TEXT, salt="a"))
    assert found(scheduler, a_request(TEXT, salt="b")) == 0
    assert found(scheduler, a_request(TEXT)) == 0
    assert found(scheduler, a_request(TEXT, salt="a")) == 16


def test_a_request_that_wants_every_prompt_token_computed_finds_nothing_but_is_found() -> None:
    scheduler = a_scheduler()
    compute(scheduler, a_request(TEXT))
    assert found(scheduler, a_request(TEXT, reads=False)) == 0
    other = [1, *TEXT]
    assert found(scheduler, a_request(other, reads=False)) == 0
    assert found(scheduler, a_request(other)) == 20


def test_without_caching_nothing_is_found_or_counted() -> None:
    scheduler = a_scheduler(keeps_prefixes=False)
    compute(scheduler, a_request(TEXT))
    assert found(scheduler, a_request(TEXT)) == 0
    assert scheduler.queried_tokens == 0


def test_a_prompt_that_two_compute_at_once_is_kept_once() -> None:
    scheduler, one, two = a_scheduler(), a_request(TEXT), a_request(TEXT, reads=False)
    compute(scheduler, one, two)
    assert not set(one.tables[0].blocks) & set(two.tables[0].blocks)
    third = a_request(TEXT)
    compute(scheduler, third)
    assert third.tables[0].blocks[:4] == one.tables[0].blocks[:4]


def test_a_prompt_that_somebody_ahead_is_computing_is_waited_for() -> None:
    scheduler, one, two, other = a_scheduler(), *(a_request(text) for text in (TEXT, TEXT, [1]))
    for request in (one, two, other):
        scheduler.add(request)
    step = scheduler.begin_step(LIMITS)
    assert step.tokens == {one: 20}, "nobody overtakes meanwhile"
    scheduler.end_step(step.tokens)
    assert scheduler.begin_step(LIMITS).tokens == {two: 4, other: 1}


def test_nobody_waits_for_a_prompt_that_has_been_given_up() -> None:
    scheduler, one, two = a_scheduler(), a_request(TEXT), a_request(TEXT)
    scheduler.add(one)
    scheduler.begin_step(LIMITS)
    scheduler.add(two)
    scheduler.remove(one)
    assert scheduler.begin_step(LIMITS).tokens == {two: 20}


def test_without_caching_nobody_waits() -> None:
    scheduler, one, two = a_scheduler(keeps_prefixes=False), a_request(TEXT), a_request(TEXT)
    scheduler.add(one)
    scheduler.add(two)
    assert scheduler.begin_step(LIMITS).tokens == {one: 20, two: 20}


def test_blocks_are_forgotten_from_the_end_of_the_text_longest_unused_first() -> None:
    scheduler = a_scheduler(blocks=5)
    compute(scheduler, first := a_request(TEXT))
    scheduler.remove(first)
    assert found(scheduler, a_request(list(range(8)))) == 0  # takes two blocks of five
    assert found(scheduler, a_request(TEXT)) == 12


def test_found_blocks_are_not_taken_for_the_newcomers_other_tokens() -> None:
    scheduler = a_scheduler(blocks=5)
    compute(scheduler, first := a_request(TEXT[:8]))
    compute(scheduler, filler := a_request(list(range(12))))
    for request in (first, filler):
        scheduler.remove(request)
    # All five blocks are free and remembered; the two oldest are the ones to share.
    second = a_request([*TEXT[:8], *range(50, 62)])
    compute(scheduler, second)
    assert second.found_tokens == 8
    assert len(set(second.tables[0].blocks)) == 5


def test_a_found_beginning_costs_no_blocks_while_others_hold_it() -> None:
    scheduler = a_scheduler(blocks=6)
    compute(scheduler, a_request(TEXT))
    compute(scheduler, second := a_request([*TEXT, 1]))
    assert second.found_tokens == 20
    assert scheduler.pool.free_blocks == 0


def test_a_preempted_request_finds_what_is_left_of_its_own() -> None:
    scheduler = a_scheduler()
    compute(scheduler, request := a_request(TEXT), output=1)
    scheduler.remove(request)  # as preemption does
    scheduler.add(request)
    step = scheduler.begin_step(LIMITS)
    assert step.admitted[request].tokens == 20
    assert scheduler.end_step(step.tokens) == 1, "only the token after the whole blocks"
    assert request.found_tokens == 0, "what its first admission found"


def test_a_windowed_group_needs_only_the_window_before_the_end_of_what_is_found() -> None:
    scheduler, first = a_scheduler(blocks=11), a_request(TEXT, windows=(None, 6))
    compute(scheduler, first, output=1)
    assert first.tables[1].released == 4
    assert len(first.tables[1].blocks) == 2
    # Full blocks 0-4, and of the windowed ones those for tokens 15 and on.
    compute(scheduler, second := a_request([*TEXT, 1, 2], windows=(None, 6)))
    assert second.found_tokens == 20
    assert second.tables[1].released == 4


def test_a_windowed_group_that_lost_its_window_shortens_what_is_found() -> None:
    windows = (None, 6)
    scheduler, first = a_scheduler(blocks=12), a_request(TEXT, windows=windows)
    compute(scheduler, first)
    # The windowed blocks that slid away are free; others take every block that is.
    scheduler.pool.take(scheduler.pool.free_blocks)
    assert found_length(scheduler, a_request([*TEXT, 1], windows=windows)) == 20
    assert found_length(scheduler, a_request([*TEXT[:12], 1], windows=windows)) == 0


def found_length(scheduler: Scheduler, request: Request) -> int:
    return computed_prefix(request, scheduler.pool).tokens


def test_every_group_has_blocks_of_its_own() -> None:
    scheduler = a_scheduler()
    compute(scheduler, first := a_request(TEXT, windows=(None, None)))
    compute(scheduler, second := a_request([*TEXT, 1], windows=(None, None)))
    assert [t.blocks[:5] for t in second.tables] == [t.blocks for t in first.tables]
    assert not set(first.tables[0].blocks) & set(first.tables[1].blocks)


def test_a_digest_depends_on_all_tokens_before_and_only_on_those() -> None:
    def digests(tokens: list[int], salt: str = "") -> list[bytes]:
        found: list[bytes] = []
        extend_digests(found, tokens, BLOCK_TOKENS, salt)
        return found

    assert len(digests(TEXT[:11])) == 2
    assert digests(TEXT)[:2] == digests(TEXT[:11])
    assert digests(TEXT)[1] != digests([0, *TEXT[1:]])[1]
    grown = digests(TEXT[:5])
    extend_digests(grown, TEXT, BLOCK_TOKENS, "")
    assert grown == digests(TEXT)
    assert digests(TEXT, "a")[0] not in (digests(TEXT, "b")[0], digests(TEXT)[0])


def test_only_held_blocks_can_be_remembered() -> None:
    with pytest.raises(ValueError, match="nothing to remember"):
        BlockPool(2).remember(0, (0, b""))


def test_too_many_blocks_leave_everything_as_it_was() -> None:
    pool = BlockPool(2)
    with pytest.raises(OutOfBlocks, match="3 blocks wanted"):
        pool.take(3)
    assert pool.free_blocks == 2
