"""What holds for every load, rule and memory."""

from dataclasses import replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_operator.scaling import Load, ScalingRule, ScalingState, decide_replicas
from llm_operator.scaling.learned import Learned
from llm_operator.scaling.state import Want
from tests.scaling.builders import LEARNED, LOST, START_S, a_load, a_rule, seen

times = st.floats(START_S - 7200, START_S)
rules = st.builds(
    lambda low, extra, budget, stabilization_s: a_rule(
        min_replicas=low,
        max_replicas=max(1, low + extra),
        budget_per_h=budget,
        stabilization_s=stabilization_s,
        idle_after_s=60.0,
    ),
    st.integers(0, 4),
    st.integers(0, 8),
    st.none() | st.integers(1, 12).map(Decimal),
    st.floats(0, 600),
)
wants = st.lists(st.tuples(times, st.integers(0, 12)), max_size=4).map(
    lambda pairs: tuple(Want(at_s, n) for at_s, n in sorted(pairs, key=lambda p: -p[1]))
)
states = st.builds(
    ScalingState,
    at_s=st.none() | times,
    wants=wants,
    active_at_s=st.none() | times,
    ready=st.integers(0, 12),
    ready_at_s=st.none() | times,
    shrunk_at_s=st.none() | times,
    learned=st.sampled_from([Learned(), LEARNED]),
    resumed=st.booleans(),
)
token_times = st.none() | st.lists(st.floats(0, 6), max_size=30).map(lambda v: seen(*v))
loads = st.builds(
    lambda per_s, ordered, held, waiting, running, ready, gaps, first, token: a_load(
        per_s,
        ordered,
        held=held,
        waiting=waiting,
        running=running,
        ready=min(ready, ordered or 0),
        gaps=(LOST,) if gaps else (),
        guard_first_token=first,
        recent_first_token=first,
        guard_per_token=token,
        recent_inter_token=token,
    ),
    st.floats(0, 20),
    st.none() | st.integers(0, 12),
    st.floats(0, 100),
    st.floats(0, 100),
    st.floats(0, 100),
    st.integers(0, 12),
    st.booleans(),
    token_times,
    token_times,
)


@given(rules, loads, states)
def test_replicas_stay_within_bounds_and_budget(
    rule: ScalingRule, load: Load, state: ScalingState
) -> None:
    decision = decide_replicas(rule, load, state, START_S)
    assert rule.floor <= decision.replicas <= rule.ceiling or decision.replicas == 0
    assert decision.replicas <= rule.max_replicas
    if rule.budget_per_h is not None and rule.price_per_h is not None:
        assert decision.replicas * rule.price_per_h <= rule.budget_per_h
    assert decision.because
    assert decision.reason.isidentifier()


@given(rules, loads, states)
def test_incomplete_data_never_take_a_replica_away(
    rule: ScalingRule, load: Load, state: ScalingState
) -> None:
    load = replace(load, gaps=(LOST,))
    for step in range(4):
        decision = decide_replicas(rule, load, state, START_S + 500 * step)
        state = decision.state
        if load.ordered is not None:
            assert decision.replicas >= min(load.ordered, rule.ceiling)


@given(rules, loads, states)
def test_deciding_twice_at_the_reached_state_changes_nothing(
    rule: ScalingRule, load: Load, state: ScalingState
) -> None:
    load = replace(load, gaps=(), terminating=0)
    once = decide_replicas(rule, load, state, START_S)
    reached = replace(load, ordered=once.replicas, starting=max(0, once.replicas - load.ready))
    twice = decide_replicas(rule, reached, once.state, START_S)
    if once.ordered is not None and once.replicas < once.ordered:
        assert twice.replicas == once.replicas
    again = decide_replicas(rule, reached, twice.state, START_S)
    if twice.replicas == reached.ordered:
        assert again.replicas == twice.replicas
        assert again.state == twice.state


@given(rules, loads, states, st.floats(0, 10), st.floats(0, 50), st.floats(0, 50))
def test_more_load_never_means_fewer_replicas(
    rule: ScalingRule,
    load: Load,
    state: ScalingState,
    per_s: float,
    held: float,
    waiting: float,
) -> None:
    state = replace(state, ready=load.ready, ready_at_s=START_S - 7200)  # measurements count
    more = replace(
        load,
        arrivals=tuple(
            replace(a, count=a.count + per_s * a.window_s, per_s=a.per_s + per_s)
            for a in load.arrivals
        ),
        held=load.held + held,
        waiting=load.waiting + waiting,
    )
    few = decide_replicas(rule, load, state, START_S)
    many = decide_replicas(rule, more, state, START_S)
    assert many.replicas >= few.replicas


@given(states)
def test_memory_survives_the_status(state: ScalingState) -> None:
    once = ScalingState.from_status(state.as_status())
    if state.at_s is None:
        return
    assert once.as_status() == state.as_status()
    assert len(str(once.as_status())) < 1500


@settings(max_examples=50)
@given(rules, st.floats(0, 20), st.integers(1, 12), states)
def test_shrinking_needs_the_whole_stabilization_time(
    rule: ScalingRule, per_s: float, ordered: int, state: ScalingState
) -> None:
    """However the memory looks, a want is honoured until it is old enough."""
    state = replace(state, at_s=START_S - 5, resumed=False, wants=(Want(START_S - 5, 12),))
    decision = decide_replicas(rule, a_load(per_s, ordered), state, START_S)
    idle = decision.reason == "Idle"
    if rule.stabilization_s > 5 and ordered <= rule.ceiling and not idle:
        assert decision.replicas >= ordered
