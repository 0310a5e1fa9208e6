"""Choosing tokens: what may be chosen, how often, and with whose chance."""

from collections import Counter
from math import log
from random import Random
from typing import Any

import pytest
import torch

from llm_engine.sampling.choice import Choice
from llm_engine.sampling.parameters import SamplingParameters
from llm_engine.sampling.sampler import choose_tokens, sample

# Probabilities .4 .3 .2 .1 at temperature 1.
LOGITS = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()


def a_choice(
    chance: Random | None = None,
    tokens: tuple[int, ...] = (0,),
    prompt_tokens: int = 1,
    end_tokens: frozenset[int] = frozenset(),
    **parameters: Any,
) -> Choice:
    asked = SamplingParameters(**{"max_tokens": 10, **parameters})
    return Choice(asked, tokens, prompt_tokens, chance or Random(1), end_tokens)


def frequencies(draws: int = 4000, **parameters: Any) -> dict[int, float]:
    chance = Random(42)
    rows = LOGITS.repeat(draws, 1)
    counts = Counter(choose_tokens(rows, [a_choice(chance, **parameters)] * draws))
    return {token: count / draws for token, count in counts.items()}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        pytest.param({}, {0: 0.1, 1: 0.4, 2: 0.2, 3: 0.3}, id="all by their probability"),
        pytest.param({"top_k": 2}, {1: 4 / 7, 3: 3 / 7}, id="top-k keeps the k likeliest"),
        pytest.param({"top_k": 100}, {0: 0.1, 1: 0.4, 2: 0.2, 3: 0.3}, id="top-k beyond all"),
        pytest.param({"top_p": 0.69}, {1: 4 / 7, 3: 3 / 7}, id="top-p keeps the fewest it needs"),
        pytest.param({"top_p": 0.01}, {1: 1.0}, id="top-p always keeps the likeliest"),
        pytest.param({"min_p": 0.6}, {1: 4 / 7, 3: 3 / 7}, id="min-p is relative to the likeliest"),
        pytest.param(
            {"temperature": 0.5},
            {0: 1 / 30, 1: 16 / 30, 2: 4 / 30, 3: 9 / 30},
            id="a low temperature favours the likely",
        ),
        pytest.param({"temperature": 1e-6}, {1: 1.0}, id="a tiny temperature is greedy"),
        pytest.param({"temperature": 0.0}, {1: 1.0}, id="temperature 0 is greedy"),
        pytest.param({"top_k": 3, "top_p": 0.7}, {1: 4 / 7, 3: 3 / 7}, id="top-k, then top-p"),
    ],
)
def test_tokens_come_as_often_as_they_should(
    parameters: dict[str, Any], expected: dict[int, float]
) -> None:
    found = frequencies(**parameters)
    assert found.keys() == expected.keys()
    assert all(found[token] == pytest.approx(share, abs=0.03) for token, share in expected.items())


def test_top_p_looks_beyond_the_first_candidates_of_a_flat_distribution() -> None:
    rows = torch.zeros(300, 5000)
    chance = Random(0)
    chosen = choose_tokens(rows, [a_choice(chance, top_p=0.9)] * 300)
    assert len(set(chosen)) > 256


def test_chance_is_the_requests_own_whatever_the_batch() -> None:
    torch.manual_seed(0)
    rows = torch.randn(6, 50)
    together = choose_tokens(rows.clone(), [a_choice(Random(seed)) for seed in range(6)])
    alone = [choose_tokens(rows[s : s + 1].clone(), [a_choice(Random(s))])[0] for s in range(6)]
    assert together == alone


def test_greedy_and_drawn_rows_mix() -> None:
    rows = LOGITS.repeat(3, 1)
    choices = [a_choice(temperature=0.0), a_choice(top_k=1), a_choice(temperature=0.0)]
    assert choose_tokens(rows, choices) == [1, 1, 1]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        pytest.param({"tokens": (0, 1), "frequency_penalty": 2.0}, 3, id="frequency penalty"),
        pytest.param({"tokens": (0, 1), "presence_penalty": 2.0}, 3, id="presence penalty"),
        pytest.param(
            {"tokens": (1, 0), "frequency_penalty": 2.0}, 1, id="the prompt has no frequency"
        ),
        pytest.param(
            {"tokens": (1, 0), "repetition_penalty": 2.0}, 3, id="the prompt counts as repeated"
        ),
        pytest.param(
            {"min_tokens": 2, "end_tokens": frozenset({1, 3})}, 2, id="no end before min_tokens"
        ),
        pytest.param(
            {"tokens": (0, 2, 2), "min_tokens": 2, "end_tokens": frozenset({1})},
            1,
            id="an end once min_tokens are there",
        ),
        pytest.param({"logit_bias": ((0, 2.0), (1, -100.0))}, 0, id="a bias lifts and bans"),
    ],
)
def test_greedy_choice_after_adjustment(choice: dict[str, Any], expected: int) -> None:
    rows = LOGITS[None].clone()
    assert choose_tokens(rows, [a_choice(temperature=0.0, **choice)]) == [expected]


def test_frequency_counts_and_presence_does_not() -> None:
    logits = torch.tensor([[2.0, 1.9, 0.0]])
    twice = (9, 0, 0, 1)
    often = a_choice(tokens=twice, temperature=0.0, frequency_penalty=0.3)
    once = a_choice(tokens=twice, temperature=0.0, presence_penalty=0.3)
    padded = torch.cat([logits, torch.full((1, 7), -9.0)], dim=1)
    assert choose_tokens(padded.clone(), [often]) == [1]
    assert choose_tokens(padded.clone(), [once]) == [0]


def test_logprobs_are_the_models_own_whatever_adjusts_the_choice() -> None:
    biased: dict[str, Any] = {
        "logit_bias": ((0, 100.0),),
        "repetition_penalty": 2.0,
        "temperature": 0.5,
    }
    (found,) = sample(LOGITS[None].clone(), [a_choice(top_logprobs=2, **biased)])
    assert found.token == 0
    assert found.logprob is not None
    assert found.logprob.logprob == pytest.approx(log(0.1))
    tokens, logprobs = zip(*found.logprob.top, strict=True)
    assert tokens == (1, 3)
    assert logprobs == pytest.approx((log(0.4), log(0.3)))


def test_only_those_who_ask_get_logprobs_and_they_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    rows = torch.randn(3, 50)
    asking = a_choice(temperature=0.0, top_logprobs=5)
    silent, first, second = sample(rows.clone(), [a_choice(temperature=0.0), asking, asking])
    assert silent.logprob is None
    alone = [sample(rows[row : row + 1].clone(), [asking])[0] for row in (1, 2)]
    assert [first, second] == alone
