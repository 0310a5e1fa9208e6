"""Steps over a runner that computes nothing: what becomes of blocks, prefixes and counts."""

from collections.abc import Mapping, Sequence

import pytest

from llm_engine.engine.active import ActiveRequest
from llm_engine.engine.messages import GenerationRequest, TokenEvent
from llm_engine.engine.stepper import Stepper
from llm_engine.sampling.choice import Choice, Score
from llm_engine.sampling.parameters import SamplingParameters
from llm_engine.sampling.sampled import Sampled, StepResult
from llm_engine.scheduling.plan import Limits
from llm_engine.scheduling.request import Request

BLOCK_TOKENS = 4
CONTEXT_TOKENS = 64


class Runner:
    """Says token 5, for ever; the next `failures` steps break."""

    block_tokens = BLOCK_TOKENS
    weight_bytes = 0
    cache_bytes = 0

    def __init__(self, blocks: int = 40, windows: tuple[int | None, ...] = (None,)) -> None:
        self.blocks = blocks
        self.windows = windows
        self.failures = 0

    def enter_thread(self) -> None:
        pass

    def run(
        self, tokens: Mapping[Request, int], choices: Sequence[Choice], scores: Sequence[Score] = ()
    ) -> StepResult:
        assert tokens
        assert not scores
        if self.failures:
            self.failures -= 1
            raise RuntimeError("out of luck")
        return StepResult([Sampled(5) for _ in choices])


def a_stepper(runner: Runner, *, keeps_prefixes: bool = True) -> Stepper:
    limits = Limits(step_tokens=32, step_requests=4)
    return Stepper(runner, limits, CONTEXT_TOKENS, None, lambda _: None, keeps_prefixes)


def ask(stepper: Stepper, runner: Runner, prompt: Sequence[int] = range(16)) -> list[TokenEvent]:
    """Queue a request for four tokens, and return the list that its events will be in."""
    events: list[TokenEvent] = []
    sampling = SamplingParameters(max_tokens=4, ignore_eos=True)
    asked = GenerationRequest("r", tuple(prompt), sampling)
    stepper.add(
        ActiveRequest(asked, events.append, frozenset(), BLOCK_TOKENS, runner.windows, now_s=0.0)
    )
    return events


def run(stepper: Stepper) -> None:
    while stepper.has_work:
        stepper.step()


def test_every_event_tells_what_the_cache_held_of_the_prompt() -> None:
    runner = Runner()
    stepper = a_stepper(runner)
    for cached in (0, 12):
        events = ask(stepper, runner)
        run(stepper)
        assert {event.cached_tokens for event in events} == {cached}
    stats = stepper.stats()
    assert (stats.prefix_queried_tokens, stats.prefix_found_tokens) == (32, 12)
    assert stats.kv_usage == 0.0


def test_without_a_prefix_cache_nothing_is_found() -> None:
    runner = Runner()
    stepper = a_stepper(runner, keeps_prefixes=False)
    for _ in range(2):
        events = ask(stepper, runner)
        run(stepper)
    assert events[-1].cached_tokens == 0
    assert stepper.stats().prefix_queried_tokens == 0


def test_what_a_failed_step_should_have_computed_is_not_found() -> None:
    runner = Runner()
    stepper = a_stepper(runner)
    runner.failures = 1
    events = ask(stepper, runner)
    with pytest.raises(RuntimeError):
        stepper.step()
    stepper.finish_running("out of luck")
    assert events[-1].finish_reason == "error"
    assert stepper.stats().kv_usage == 0.0
    events = ask(stepper, runner)
    run(stepper)
    assert events[-1].cached_tokens == 0
    assert events[-1].finish_reason == "length"


@pytest.mark.parametrize(
    ("windows", "blocks_of_one"),
    # 64 tokens are 16 blocks; of a window of 8 and a step of 32 at most 10 and 1 are held.
    [((None,), 16), ((None, None), 32), ((8,), 11), ((None, 8, 8), 38), ((60,), 16)],
)
def test_concurrency_counts_requests_of_the_longest_context(
    windows: tuple[int | None, ...], blocks_of_one: int
) -> None:
    stats = a_stepper(Runner(80, windows)).stats()
    assert stats.max_concurrency == 80 / blocks_of_one
