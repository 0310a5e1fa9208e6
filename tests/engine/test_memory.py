"""How many blocks fit, and what is said when not even one request does."""

from typing import Any

import pytest

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.engine.memory import FREE_SHARE, check_weights_fit, count_blocks

MIB = 1 << 20


def blocks(**changes: Any) -> int:
    defaults = {
        "block_bytes": MIB,
        "block_tokens": 16,
        "blocks_per_request": 10,
        "context_tokens": 160,
        "step_requests": 8,
        "free_bytes": 100 * MIB,
        "kv_cache_bytes": None,
    }
    return count_blocks(**{**defaults, **changes})


def test_a_share_of_what_is_free_is_used() -> None:
    assert blocks(free_bytes=50 * MIB) == int(50 * FREE_SHARE)


def test_no_more_than_all_running_requests_can_fill() -> None:
    assert blocks(free_bytes=10_000 * MIB) == 10 * 8


def test_a_wish_is_kept() -> None:
    assert blocks(kv_cache_bytes=33 * MIB) == 33


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"free_bytes": 10 * MIB},
            ["160 tokens", "needs 10 MiB", "8 MiB are there", "at most 128"],
            id="too little left",
        ),
        pytest.param(
            {"kv_cache_bytes": 9 * MIB},
            ["needs 10 MiB", "9 MiB", "--kv-cache-bytes", "at most 144"],
            id="too little asked for",
        ),
        pytest.param(
            {"kv_cache_bytes": 75 * MIB, "free_bytes": 60 * MIB},
            ["75 MiB", "60 MiB"],
            id="more asked for than there is",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_numbers(changes: dict[str, int], words: list[str]) -> None:
    with pytest.raises(ModelRefused) as refusal:
        blocks(**changes)
    assert refusal.value.reason is FailureReason.OUT_OF_MEMORY
    assert all(word in refusal.value.message for word in words), refusal.value.message


def test_weights_that_do_not_fit_are_refused_before_they_are_loaded() -> None:
    check_weights_fit(10 * MIB, 10 * MIB)
    with pytest.raises(ModelRefused, match="need 11 MiB and 10 MiB are free"):
        check_weights_fit(11 * MIB, 10 * MIB)
