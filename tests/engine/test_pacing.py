"""Prefill is paced so that a mixed step stays within the time per token that was promised."""

import pytest

from llm_engine.scheduling.pacing import FEWEST_PREFILL_TOKENS, Pace


def test_without_a_target_nothing_is_bounded() -> None:
    assert Pace(0.01, 0.001).prefill_tokens(None) is None


def test_before_anything_was_measured_nothing_is_bounded() -> None:
    assert Pace().prefill_tokens(0.05) is None


def test_the_time_that_decoding_leaves_is_filled_with_prompt_tokens() -> None:
    pace = Pace(decode_step_s=0.02, prefill_token_s=0.001)
    assert pace.prefill_tokens(0.07) == pytest.approx(50, abs=1)


def test_prompts_still_move_when_decoding_alone_misses_the_target() -> None:
    assert Pace(0.2, 0.001).prefill_tokens(0.05) == FEWEST_PREFILL_TOKENS


def test_steps_teach_the_pace() -> None:
    pace = Pace()
    for _ in range(60):
        pace = pace.after(0.02, prefill_tokens=0, decode_tokens=8)
        pace = pace.after(0.12, prefill_tokens=100, decode_tokens=8)
    assert pace.decode_step_s == pytest.approx(0.02)
    assert pace.prefill_token_s == pytest.approx(0.001)


def test_a_step_of_prompts_only_owes_nothing_to_decoding() -> None:
    pace = Pace(decode_step_s=0.02).after(0.1, prefill_tokens=100, decode_tokens=0)
    assert pace.prefill_token_s == pytest.approx(0.001)
