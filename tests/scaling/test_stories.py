"""Stories about one LLMDeployment, told with a hand-stepped clock."""

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import pytest

from llm_operator.scaling import ScalingState
from tests.scaling.builders import LEARNED, LOST, Story, a_load, a_rule, seen


def test_a_step_of_four_times_the_load_orders_all_that_is_needed_within_two_decisions() -> None:
    story = Story(a_rule())
    story.go_on(120, per_s=0.5)
    assert story.ordered == 1

    story.look(per_s=2.0)
    after_two = story.look(per_s=2.0)

    assert after_two.replicas == 4
    assert after_two.metrics_available.holds
    assert story.go_on(600, per_s=2.0)[-1] == 4
    assert story.turns == 0


def test_growth_is_explained_with_its_numbers() -> None:
    story = Story(a_rule())
    grown = story.look(per_s=2.0)

    assert grown.reason == "DemandAboveCapacity"
    assert "2 requests/s arrive" in grown.because
    assert "a step takes 61.4 ms" in grown.because
    assert "that takes 4 replicas" in grown.because
    assert grown.inputs["requestsPerSecond"] == 2
    assert grown.inputs["neededNow"] == 4


def test_a_lull_shorter_than_the_stabilization_costs_nothing() -> None:
    story = Story(a_rule(), ordered=4)
    story.go_on(120, per_s=2.0)

    during = story.go_on(55, per_s=0.1)
    after = story.go_on(120, per_s=2.0)

    assert set(during) == set(after) == {4}
    assert story.decisions[30].reason == "Stabilizing"


def test_calm_takes_one_replica_at_a_time_emptiest_first() -> None:
    story = Story(a_rule(), ordered=4)
    story.go_on(120, per_s=2.0)
    numbers = story.go_on(180, per_s=0.1)

    assert numbers[-1] == 1
    assert all(before - after <= 1 for before, after in pairwise(numbers))
    shrinks = [d for d in story.decisions if d.ordered and d.replicas < d.ordered]
    assert [d.reason for d in shrinks] == ["DemandBelowCapacity"] * 3
    assert shrinks[0].deletion_costs == {f"replica-{i}": i for i in range(4)}
    assert not any(d.deletion_costs for d in story.decisions if d not in shrinks)
    assert story.turns == 0


def test_max_step_lets_more_go_at_once() -> None:
    story = Story(a_rule(max_step=3), ordered=8)
    story.go_on(30, per_s=4.0)
    assert 5 in story.go_on(180, per_s=0.1)


def test_steps_down_leave_time_to_see_that_the_rest_hold() -> None:
    story = Story(a_rule(stabilization_s=100.0), ordered=4)
    story.go_on(300, per_s=0.1)
    shrunk_at = [i for i, d in enumerate(story.decisions) if d.changed]
    assert [b - a for a, b in pairwise(shrunk_at)] == [
        6,
        6,
    ]  # 25 s after the last one was seen gone


def test_ten_minutes_without_metrics_remove_no_replica() -> None:
    story = Story(a_rule(), ordered=4)
    story.go_on(120, per_s=2.0)

    blind = story.go_on(600, per_s=0.0, running=0.0, gaps=(LOST,), known=False)

    assert set(blind) == {4}
    assert story.decisions[-1].reason == "MetricsIncomplete"
    assert story.decisions[-1].metrics_available.holds is False
    assert "replica-0 are 30 s old" in story.decisions[-1].metrics_available.message
    # and the time that nobody saw is no proof of calm: stabilization starts with the first data
    assert set(story.go_on(55, per_s=0.1)) == {4}
    assert story.go_on(15, per_s=0.1)[-1] == 3


def test_partial_metrics_still_let_it_grow() -> None:
    story = Story(a_rule(), ordered=2)
    assert story.look(per_s=2.0, gaps=(LOST,)).replicas == 4


def test_an_oscillating_load_turns_at_most_once_per_stabilization() -> None:
    story = Story(a_rule())
    for _ in range(15):
        story.go_on(20, per_s=1.3)
        story.go_on(20, per_s=0.9)
    assert story.turns <= 1  # ten stabilization times


def test_an_idle_model_stops_and_a_request_wakes_it_at_once() -> None:
    story = Story(a_rule(min_replicas=0, idle_after_s=120.0))
    story.go_on(30, per_s=0.3)

    idle = story.go_on(115)
    assert set(idle) == {1}
    stopped = story.look()
    assert (stopped.replicas, stopped.reason) == (0, "Idle")
    assert "no request for 120 s" in stopped.because or "2 min" in stopped.because
    assert set(story.go_on(600)) == {0}

    woken = story.look(held=1.0)
    assert (woken.replicas, woken.reason) == (1, "RequestsHeld")


@pytest.mark.parametrize(
    "sign_of_life",
    [{"held": 1.0}, {"in_flight": 1.0}, {"running": 1.0}, {"waiting": 1.0}],
    ids=["held at a gateway", "in flight", "running in an engine", "waiting in an engine"],
)
def test_a_request_that_races_with_the_last_replica_wins(sign_of_life: dict[str, float]) -> None:
    story = Story(a_rule(min_replicas=0, idle_after_s=60.0))
    story.go_on(55)
    assert story.look(**sign_of_life).replicas == 1


def test_an_idle_model_never_stops_while_a_gateway_is_not_seen() -> None:
    story = Story(a_rule(min_replicas=0, idle_after_s=60.0))
    assert set(story.go_on(600, gaps=(LOST,))) == {1}


def test_many_replicas_of_an_idle_model_step_down_then_stop_together() -> None:
    story = Story(a_rule(min_replicas=0, idle_after_s=600.0, stabilization_s=300.0), ordered=6)
    numbers = story.go_on(700)
    assert numbers[-1] == 0


def test_the_budget_caps_replicas_and_says_by_how_much() -> None:
    story = Story(a_rule(budget_per_h=Decimal("3.50")), ordered=2)
    grown = story.look(per_s=5.0)

    assert grown.replicas == 3
    assert grown.within_budget.holds
    assert grown.within_budget.reason == "BudgetBinds"
    assert "pays for 3 replicas" in grown.within_budget.message
    stuck = story.look(per_s=5.0)
    assert (stuck.replicas, stuck.reason) == (3, "AtBudget")


def test_a_replica_that_is_stopping_still_costs() -> None:
    rule = a_rule(budget_per_h=Decimal("4.00"))
    story = Story(rule, ordered=2)
    assert story.look(per_s=5.0, terminating=1).replicas == 3
    assert story.look(per_s=5.0, terminating=1).reason == "AtBudget"
    assert story.look(per_s=5.0, terminating=2).within_budget.reason == "OverBudget"
    assert story.look(per_s=5.0).replicas == 4


def test_a_budget_or_maximum_that_was_lowered_needs_no_metrics() -> None:
    blind = a_load(0.0, 5, gaps=(LOST,), known=False)
    story = Story(a_rule(budget_per_h=Decimal("2.00")), ordered=5)
    assert story.look(gaps=blind.gaps, known=False).reason == "BudgetLimit"
    assert story.ordered == 2
    story = Story(a_rule(max_replicas=3), ordered=5)
    assert story.look(gaps=blind.gaps, known=False).reason == "AboveMaximum"
    assert story.ordered == 3


def test_money_goes_before_the_minimum() -> None:
    story = Story(a_rule(min_replicas=4, budget_per_h=Decimal("2.00")), ordered=2)
    assert story.look().replicas == 2


def test_a_raised_minimum_is_obeyed_at_once() -> None:
    story = Story(a_rule(min_replicas=3), ordered=1)
    decision = story.look(gaps=(LOST,), known=False)
    assert (decision.replicas, decision.reason) == (3, "BelowMinimum")


def test_the_maximum_binds_and_says_so() -> None:
    story = Story(a_rule(max_replicas=3), ordered=3)
    assert story.look(per_s=5.0).reason == "AtMaximum"


def test_the_first_decision_runs_one_replica_even_where_none_is_the_minimum() -> None:
    story = Story(a_rule(min_replicas=0), ordered=None)
    first = story.look()
    assert (first.replicas, first.reason) == (1, "FirstReplicas")


def test_a_deployment_that_somebody_deleted_comes_back_at_its_old_size() -> None:
    story = Story(a_rule(), ordered=4)
    story.go_on(60, per_s=2.0)
    story.ordered, story.born_s = None, []
    assert story.look().replicas == 4


@pytest.mark.parametrize("away_s", [10.0, 3000.0], ids=["a restart of seconds", "ten minutes away"])
def test_an_operator_that_comes_back_holds_until_it_has_watched_enough(away_s: float) -> None:
    story = Story(a_rule(), ordered=4)
    story.go_on(120, per_s=2.0)
    story.state = ScalingState.from_status(story.state.as_status())
    story.now_s += away_s

    assert set(story.go_on(60, per_s=0.1)) == {4}
    assert story.go_on(15, per_s=0.1)[-1] == 3


def test_an_operator_that_comes_back_without_any_memory_holds_too() -> None:
    story = Story(a_rule(), ordered=4)
    story.state = ScalingState()
    assert set(story.go_on(60, per_s=0.0)) == {4}


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0], ids=["an hour ahead", "an hour back"])
def test_a_jump_of_the_clock_scales_nothing(jump_s: float) -> None:
    story = Story(a_rule(), ordered=4)
    story.go_on(120, per_s=2.0)
    story.go_on(20, per_s=0.1)
    story.now_s += jump_s

    assert set(story.go_on(55, per_s=0.1)) == {4}
    assert story.go_on(60, per_s=0.1)[-1] < 4


def test_a_jump_of_the_clock_does_not_stop_an_idle_model_early() -> None:
    story = Story(a_rule(min_replicas=0, idle_after_s=600.0))
    story.go_on(30, per_s=0.3)
    story.now_s += 3600
    assert set(story.go_on(300)) == {1}


def slow(count: int, token_s: float) -> dict[str, object]:
    many = seen(*[token_s] * count)
    return {"guard_per_token": many, "seen_per_token": many, "recent_inter_token": many}


def test_measured_misses_win_over_a_model_that_says_it_holds() -> None:
    story = Story(a_rule(), ordered=2)
    story.go_on(60, per_s=1.0)
    decision = story.look(per_s=1.0, **slow(40, 0.28))

    assert (decision.replicas, decision.reason) == (3, "TargetsMissed")
    assert "the target is 200 ms" in decision.because
    assert decision.targets_met.holds is False


def test_misses_do_not_run_away_while_replicas_start() -> None:
    story = Story(a_rule(), ordered=2, start_s=1000.0)
    story.born_s = [-1e9, -1e9]
    story.go_on(60, per_s=1.0)
    assert max(story.go_on(300, per_s=1.0, **slow(40, 0.4))) <= 6  # twice what is missing


def test_two_slow_requests_of_forty_are_chance_at_the_95th_percentile() -> None:
    story = Story(a_rule(), ordered=1)
    story.go_on(60, per_s=0.4)
    mostly_fast = seen(*[0.15] * 38, 0.29, 0.29)
    assert story.look(per_s=0.4, guard_per_token=mostly_fast).replicas == 1


def test_misses_that_are_over_count_no_more() -> None:
    story = Story(a_rule(), ordered=2)
    story.go_on(60, per_s=1.0)
    past = slow(40, 0.28) | {"recent_inter_token": seen(*[0.05] * 100)}
    assert story.look(per_s=1.0, **past).replicas == 2


def test_nothing_is_taken_away_while_targets_are_missed() -> None:
    story = Story(a_rule(max_replicas=3), ordered=3)
    assert set(story.go_on(600, per_s=0.4, **slow(40, 0.28))) == {3}


def test_a_target_that_one_request_alone_misses_orders_no_army() -> None:
    story = Story(a_rule(time_per_output_token_s=0.05))
    story.go_on(300, per_s=0.3, **slow(40, 0.09))
    decision = story.decisions[-1]
    assert decision.replicas == 1
    assert decision.targets_met.reason == "OutOfReach"
    assert "more replicas cannot help" in decision.targets_met.message


def test_an_unknown_capacity_keeps_what_runs_under_load() -> None:
    story = Story(a_rule(), ordered=3)
    story.state = ScalingState()
    assert set(story.go_on(600, per_s=0.01)) == {3}
    assert story.go_on(600, running=0.0)[-1] == 1


def test_an_overload_before_any_request_has_finished_grows_by_an_assumed_length() -> None:
    story = Story(a_rule())
    story.state = ScalingState(learned=replace(LEARNED, prompt_tokens=None, output_tokens=None))
    grown = story.look(per_s=1.0, running=30.0)
    assert grown.replicas >= 4
    assert "an answer is taken to have 100 tokens" in grown.because
    assert set(story.go_on(600, per_s=0.01)) == {story.ordered}  # a guess takes nothing away


def test_nothing_changes_at_rest() -> None:
    story = Story(a_rule(min_replicas=0, idle_after_s=60.0), ordered=1)
    story.go_on(600)
    saved = story.state
    story.go_on(600)
    assert not story.state.worth_writing(saved)
    assert not any(d.changed for d in story.decisions[-100:])


def test_what_would_be_done_stays_the_same_while_nobody_does_it() -> None:
    """Modes Advisory and Manual: the number that is ordered never follows."""
    story = Story(a_rule(), ordered=4)
    wishes = []
    for _ in range(60):
        wishes.append(story.look(per_s=0.1).replicas)
        story.ordered, story.born_s = 4, [0.0] * 4
    assert wishes[-40:] == [3] * 40
