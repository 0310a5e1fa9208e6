"""The engine's promises to its callers: every request ends, with a reason, and leaves nothing."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tiny_models import CONTEXT_TOKENS
from llm_engine.engine import (
    Engine,
    EngineStopped,
    GenerationRequest,
    SamplingParameters,
    StepRecord,
    TokenEvent,
)
from llm_engine.sampling.sampled import StepResult
from tests.engine.tiny_llama import Answers, an_engine, greedy, prompts_of


@pytest.fixture
def engine(tiny_llama: Path) -> Iterator[Engine]:
    engine = an_engine(tiny_llama)
    yield engine
    engine.stop()


def a_request(name: str = "a", prompt: int = 5, max_tokens: int = 100) -> GenerationRequest:
    return GenerationRequest(name, tuple(prompts_of(prompt)[0]), greedy(max_tokens))


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_an_aborted_request_ends_and_its_blocks_are_free_at_once(engine: Engine) -> None:
    answers, reached, go_on = Answers(), threading.Event(), threading.Event()

    def slow(event: TokenEvent) -> None:
        answers.take(event)
        reached.set()
        go_on.wait(30)  # holds the engine in mid step, so that the abort comes in between

    engine.start()
    engine.submit(a_request(), slow)
    assert reached.wait(30)
    engine.abort("a")
    go_on.set()
    answers.wait_for_ends(1)
    assert answers.last["a"].finish_reason == "abort"
    assert len(answers.tokens["a"]) == 1, "the abort came before the next step"
    until(lambda: engine.stats().is_idle)
    assert engine.stats().kv_usage == 0.0


def test_a_waiting_request_can_be_aborted(tiny_llama: Path) -> None:
    engine, answers = an_engine(tiny_llama, step_requests=1), Answers()
    engine.submit(a_request("first"), answers.take)
    engine.submit(a_request("second"), answers.take)
    engine.abort("second")
    engine.start()
    answers.wait_for_ends(2)
    engine.stop()
    assert answers.last["first"].finish_reason == "length"
    assert answers.last["second"].finish_reason == "abort"
    assert answers.tokens["second"] == []


def test_aborting_what_nobody_knows_does_nothing(engine: Engine) -> None:
    engine.start()
    engine.abort("nobody")
    answers = Answers()
    engine.submit(a_request(max_tokens=2), answers.take)
    answers.wait_for_ends(1)


def test_stopping_ends_every_request(engine: Engine) -> None:
    answers = Answers()
    engine.start()
    for name in "abc":
        engine.submit(a_request(name), answers.take)
    answers.wait_for_token("a")
    engine.stop()
    answers.wait_for_ends(3)
    assert {event.finish_reason for event in answers.last.values()} <= {"abort", "length"}
    assert not engine.healthy
    with pytest.raises(EngineStopped):
        engine.submit(a_request("d"), answers.take)
    engine.stop()


def test_a_failed_step_ends_its_requests_and_the_next_ones_are_served(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, failures = engine._runner.run, ["out of luck"]

    def failing(*arguments: Any) -> StepResult:
        if failures:
            raise RuntimeError(failures.pop())
        return run(*arguments)

    monkeypatch.setattr(engine._runner, "run", failing)
    answers = Answers()
    engine.submit(a_request("a"), answers.take)
    engine.start()
    answers.wait_for_ends(1)
    assert answers.last["a"].finish_reason == "error"
    assert answers.last["a"].error == "RuntimeError: out of luck"
    assert engine.healthy
    engine.submit(a_request("b"), answers.take)
    answers.wait_for_ends(2)
    assert answers.last["b"].finish_reason == "length"
    assert engine.stats().kv_usage == 0.0


def test_an_engine_that_fails_again_and_again_is_not_healthy(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> StepResult:
        raise RuntimeError("broken")

    monkeypatch.setattr(engine._runner, "run", failing)
    answers = Answers()
    engine.start()
    for number in range(3):
        assert engine.healthy
        engine.submit(a_request(str(number)), answers.take)
        answers.wait_for_ends(number + 1)
    until(lambda: not engine.healthy)
    with pytest.raises(EngineStopped):
        engine.submit(a_request("late"), answers.take)
    assert {event.finish_reason for event in answers.last.values()} == {"error"}


def test_a_receiver_that_fails_harms_only_its_own_request(engine: Engine) -> None:
    answers = Answers()

    def failing(_: TokenEvent) -> None:
        raise ValueError("the receiver is broken")

    engine.submit(a_request("broken"), failing)
    engine.submit(a_request("sound"), answers.take)
    engine.start()
    answers.wait_for_ends(1)
    assert answers.last["sound"].finish_reason == "length"
    until(lambda: engine.stats().is_idle)


@pytest.mark.parametrize(
    ("prompt", "sampling", "words"),
    [
        pytest.param((), {"max_tokens": 1}, "0 prompt tokens", id="no prompt"),
        pytest.param((1,), {"max_tokens": 0}, "max_tokens 0", id="nothing to generate"),
        pytest.param((1,) * 100, {"max_tokens": 29}, "100 prompt .* 29 .* 128", id="too long"),
        pytest.param((260,), {"max_tokens": 1}, "0 to 259", id="a token that is not there"),
        pytest.param((-1,), {"max_tokens": 1}, "0 to 259", id="a negative token"),
        pytest.param(
            (1,),
            {"max_tokens": 1, "stop_token_ids": frozenset({999})},
            "0 to 259",
            id="a stop token that is not there",
        ),
    ],
)
def test_requests_that_can_never_run_are_refused(
    engine: Engine, prompt: tuple[int, ...], sampling: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        engine.submit(
            GenerationRequest("a", prompt, SamplingParameters(**sampling)), Answers().take
        )
    assert engine.stats().is_idle


def test_an_id_cannot_run_twice_at_the_same_time(engine: Engine) -> None:
    answers = Answers()
    engine.submit(a_request("a", max_tokens=1), answers.take)
    with pytest.raises(ValueError, match="already running"):
        engine.submit(a_request("a"), answers.take)
    engine.start()
    answers.wait_for_ends(1)
    engine.submit(a_request("a", max_tokens=1), Answers().take)


def test_the_longest_context_can_be_filled_to_the_last_token(engine: Engine) -> None:
    answers = Answers()
    engine.submit(a_request("full", prompt=CONTEXT_TOKENS - 3, max_tokens=3), answers.take)
    engine.start()
    answers.wait_for_ends(1)
    assert len(answers.tokens["full"]) == 3


def test_a_stop_token_ends_the_text_and_is_not_part_of_it(engine: Engine) -> None:
    answers = Answers()
    engine.submit(a_request("all", max_tokens=20), answers.take)
    engine.start()
    answers.wait_for_ends(1)
    text = answers.tokens["all"]
    stop = text[7]
    first = text.index(stop)
    for name, min_tokens, expected in (
        ("early", 0, text[:first]),
        ("late", first + 1, None),
    ):
        sampling = SamplingParameters(
            max_tokens=20,
            temperature=0.0,
            stop_token_ids=frozenset({stop}),
            min_tokens=min_tokens,
        )
        request = GenerationRequest(name, a_request().prompt_tokens, sampling)
        engine.submit(request, answers.take)
        answers.wait_for_ends(len(answers.last) + 1)
        times = answers.last[name].times
        assert times is not None
        if expected is None:
            assert times.output_tokens > first + 1, "no end before min_tokens"
        else:
            assert answers.tokens[name] == expected
            assert answers.last[name].finish_reason == "stop"
            assert times.output_tokens == first + 1


def test_a_finished_request_says_where_its_time_went(engine: Engine) -> None:
    answers, began_s = Answers(), time.monotonic()
    engine.submit(a_request(prompt=9, max_tokens=4), answers.take)
    engine.start()
    answers.wait_for_ends(1)
    times = answers.last["a"].times
    assert times is not None
    assert (times.prompt_tokens, times.output_tokens, times.preemptions) == (9, 4, 0)
    assert min(times.queue_s, times.prefill_s, times.decode_s) >= 0
    assert began_s <= times.arrived_at_s
    assert times.arrived_at_s + times.total_s <= time.monotonic()


def test_every_token_is_counted_in_the_step_records(engine: Engine) -> None:
    records: list[StepRecord] = []
    engine.on_step = records.append
    answers = Answers()
    for number, prompt in enumerate((30, 50, 20)):
        engine.submit(a_request(str(number), prompt, max_tokens=6), answers.take)
    engine.start()
    answers.wait_for_ends(3)
    until(lambda: sum(r.sampled_tokens for r in records) == 18)
    # The prompts begin alike: what the cache held of the later ones was not computed again.
    cached = sum(event.cached_tokens for event in answers.last.values())
    assert sum(r.prefill_tokens for r in records) + cached == 100
    assert engine.stats().prefix_queried_tokens == 100
    assert engine.stats().prefix_found_tokens == cached > 0
    assert sum(r.decode_tokens for r in records) == 15  # the first token comes with the prefill
    assert any(r.prefill_tokens and r.decode_tokens for r in records), "both in one step"


def test_a_receiver_of_records_that_fails_does_not_stop_the_engine(engine: Engine) -> None:
    def failing(_: StepRecord) -> None:
        raise ValueError("no metrics today")

    engine.on_step = failing
    answers = Answers()
    engine.submit(a_request(max_tokens=3), answers.take)
    engine.start()
    answers.wait_for_ends(1)
    assert answers.last["a"].finish_reason == "length"


def test_stats_show_what_waits_before_the_engine_has_looked(engine: Engine) -> None:
    engine.submit(a_request("a", prompt=30, max_tokens=9), Answers().take)
    engine.submit(a_request("b", prompt=12), Answers().take)
    stats = engine.stats()
    assert (stats.waiting, stats.running, stats.pending_prefill_tokens) == (2, 0, 42)
    assert stats.tokens_in_flight == 42
    assert stats.last_token_at_s is None
    assert stats.max_concurrency == stats.blocks * stats.block_tokens / CONTEXT_TOKENS


def test_importing_the_engine_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, llm_engine.engine, llm_engine.weights.inspection, llm_engine.tokenizer."
        "tokenizer; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    path = {"PYTHONPATH": str(Path(__file__).parents[2] / "serving_image")}
    assert subprocess.run([sys.executable, "-c", code], env=path, check=False).returncode == 0
