"""What is learned of a replica, and what it is then said to carry."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_operator.scaling.capacity import capacity_of, predict
from llm_operator.scaling.histogram import Histogram
from llm_operator.scaling.learned import MAX_POOLS, POOL_S, Learned, Pool, learn
from llm_operator.scaling.load import Work
from llm_operator.scaling.step_law import StepLaw, fit
from tests.scaling import cases
from tests.scaling.builders import LEARNED, a_load, a_rule, pool
from tests.scaling.closed_loop import Case, warmed_up


def test_the_law_is_found_again_where_the_work_tells_its_parts_apart() -> None:
    law = fit([pool(1), pool(8), pool(4, 20), pool(2, 60)])
    assert law is not None
    assert law.fixed_s == pytest.approx(0.06, rel=0.05)
    assert law.per_output_s == pytest.approx(0.015, rel=0.1)
    assert law.per_prompt_s == pytest.approx(0.003, rel=0.05)


def test_where_the_work_is_always_the_same_a_prior_splits_the_time() -> None:
    law = fit([pool(4)])
    assert law is not None
    assert law.fixed_s > 4 * law.per_output_s > 0
    assert law.fixed_s + 4 * law.per_output_s == pytest.approx(0.12, rel=0.05)


def test_too_little_work_teaches_nothing() -> None:
    assert fit([]) is None
    assert fit([pool(1, seconds=0.3)]) is None


@given(
    st.lists(
        st.tuples(st.floats(1, 100), st.floats(0, 500), st.floats(0.2, 30), st.floats(0.2, 5)),
        min_size=1,
        max_size=10,
    )
)
def test_no_part_of_the_law_is_ever_negative(
    work: list[tuple[float, float, float, float]],
) -> None:
    pools = [
        replace(p, step_s=p.step_s * noise)
        for p, noise in ((pool(n, prompt, s), noise) for n, prompt, s, noise in work)
    ]
    law = fit(pools)
    if law is not None:
        assert min(law.fixed_s, law.per_output_s, law.per_prompt_s) >= 0
        assert max(law.fixed_s, law.per_output_s, law.per_prompt_s) > 0


def test_learning_pools_work_by_its_kind_and_forgets_by_work() -> None:
    work = tuple(Work(1.0, 10, 0, 10 * n, 1.0) for n in (1, 1, 8) * 40)
    learned = learn(Learned(), a_load(work=work), watched_s=5.0)
    assert len(learned.pools) == 2
    assert max(p.step_s for p in learned.pools) <= POOL_S
    unchanged = learn(learned, a_load(), watched_s=5.0)
    assert unchanged.pools == learned.pools  # nothing changes at rest


def test_work_is_learned_once() -> None:
    old = a_load(work=(Work(age_s=7.0, steps=10, prompt_tokens=0, output_tokens=10, step_s=1.0),))
    assert learn(Learned(), old, watched_s=5.0).pools == ()
    assert learn(Learned(), old, watched_s=0.0) == Learned()


def test_there_are_never_more_than_a_handful_of_pools() -> None:
    chance = random.Random(1)
    learned = Learned()
    for _ in range(300):
        n, prompt = chance.uniform(1, 200), chance.uniform(0, 2000)
        work = Work(1.0, 10, 10 * prompt, 10 * n, chance.uniform(0.1, 2))
        learned = learn(learned, a_load(work=(work,)), watched_s=5.0)
    assert len(learned.pools) <= MAX_POOLS


def test_lengths_follow_the_requests_that_finish() -> None:
    tens = Histogram((100.0,), (20.0, 20.0), 200.0)
    learned = learn(Learned(output_tokens=50.0), a_load(outputs=tens), watched_s=15.0)
    assert learned.output_tokens == pytest.approx(50 - 40 * 20 / 25)
    assert learn(Learned(), a_load(outputs=replace(tens, counts=(2.0, 2.0))), 15.0) == Learned()


@pytest.mark.parametrize("case", [cases.STEADY, cases.STAGES], ids=["small CPU", "large GPU"])
def test_the_capacity_learned_in_calm_is_near_the_measured_knee(case: Case) -> None:
    learned = warmed_up(case, seed=3).learned
    capacity = capacity_of(case.rule, learned, None)
    assert capacity is not None
    assert capacity.requests_per_s == pytest.approx(case.knee_per_s, rel=0.25)


def test_stricter_targets_and_longer_answers_leave_less_capacity() -> None:
    def carried(**changes: float | None) -> float:
        lengths = changes.pop("output_tokens", 40)
        learned = replace(LEARNED, output_tokens=lengths)
        capacity = capacity_of(a_rule(**changes), learned, None)
        assert capacity is not None
        return capacity.requests_per_s

    assert carried(time_per_output_token_s=0.1) < carried(time_per_output_token_s=0.2)
    assert carried(time_to_first_token_s=0.5) < carried(time_to_first_token_s=2.0)
    assert carried(percentile=99.0) < carried(percentile=50.0)
    assert carried(output_tokens=200) < carried(output_tokens=40) / 3
    no_targets = carried(time_per_output_token_s=None, time_to_first_token_s=None)
    assert no_targets > carried()


def test_an_engine_that_runs_few_requests_at_once_carries_less() -> None:
    few, many = (capacity_of(a_rule(), LEARNED, limit) for limit in (2.0, 100.0))
    assert few is not None
    assert many is not None
    assert few.requests_per_s < many.requests_per_s


@given(st.floats(0, 0.9), st.floats(0, 0.9))
def test_more_requests_are_never_predicted_to_be_faster(one: float, other: float) -> None:
    law = StepLaw(0.06, 0.015, 0.003)
    rates = [full / (40 * 0.018) for full in sorted((one, other))]
    slow, slower = (predict(law, 40, 40, rate_per_s, 95) for rate_per_s in rates)
    assert slow.per_token_s <= slower.per_token_s + 1e-12
    assert slow.first_token_s <= slower.first_token_s + 1e-12


def slower(pools: tuple[Pool, ...], times: float) -> Learned:
    """Return what a machine that is so many times slower teaches."""
    return Learned(tuple(replace(p, step_s=p.step_s * times) for p in pools), 40, 40)


def test_an_overload_alone_is_no_proof_that_a_target_is_out_of_reach() -> None:
    capacity = capacity_of(a_rule(), slower((pool(30), pool(40)), times=5), None)
    assert capacity is not None
    assert capacity.reachable
    assert capacity.concurrency < 10
    assert capacity.law.fixed_s <= 0.1


def test_a_target_that_a_request_alone_misses_is_out_of_reach_and_bounds_company() -> None:
    capacity = capacity_of(a_rule(), slower((pool(1), pool(8)), times=5), None)
    assert capacity is not None
    assert not capacity.reachable
    alone = predict(capacity.law, 40, 40, 0.0, 95)
    crowd = predict(capacity.law, 40, 40, capacity.requests_per_s, 95)
    assert 0.2 < alone.per_token_s < crowd.per_token_s <= 2.01 * alone.per_token_s
