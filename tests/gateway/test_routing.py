from hypothesis import given, settings
from hypothesis import strategies as st

from llm_operator.gateway.replica import Health, Replica
from llm_operator.gateway.routing import RetryBudget, Wait, pick

LIMIT = 4


def a_replica(
    tokens: int = 0, requests: int = 0, health: Health = Health.UP, url: str = ""
) -> Replica:
    return Replica(url, health, in_flight_requests=requests, dispatched_tokens=tokens)


replicas = st.lists(
    st.builds(
        a_replica,
        tokens=st.integers(0, 5),
        requests=st.integers(0, LIMIT + 1),
        health=st.sampled_from(Health),
    ),
    max_size=6,
)


@settings(deadline=None)
@given(replicas, st.integers(0, 100), st.integers(0, 5))
def test_a_pick_is_usable_and_least_loaded(some: list[Replica], turn: int, failed: int) -> None:
    avoid = some[failed] if failed < len(some) else None
    choice = pick(some, LIMIT, turn=turn, avoid=avoid)
    up = [r for r in some if r.health is Health.UP]
    tier = up or [r for r in some if r.health is Health.SILENT]
    free = [r for r in tier if r.in_flight_requests < LIMIT]
    if not tier:
        assert choice is Wait.NO_REPLICA
    elif not free:
        assert choice is Wait.BUSY
    else:
        assert isinstance(choice, Replica)
        assert choice in free
        if free != [avoid]:
            assert choice is not avoid
        assert choice.load_tokens == min(
            r.load_tokens for r in free if r is choice or r is not avoid
        )


def test_tokens_count_not_requests() -> None:
    many_small, one_large = a_replica(tokens=30, requests=3), a_replica(tokens=4000, requests=1)
    assert pick([many_small, one_large], LIMIT, turn=0) is many_small


def test_equals_take_turns() -> None:
    equals = [a_replica(url=str(n)) for n in range(3)]
    picked = [pick(equals, LIMIT, turn=turn) for turn in range(6)]
    assert picked == equals * 2


def test_a_silent_replica_is_better_than_none() -> None:
    silent, out = a_replica(health=Health.SILENT), a_replica(health=Health.OUT)
    assert pick([out, silent], LIMIT, turn=0) is silent


def test_a_full_fleet_is_busy_even_when_a_silent_replica_is_free() -> None:
    full, silent = a_replica(requests=LIMIT), a_replica(health=Health.SILENT)
    assert pick([full, silent], LIMIT, turn=0) is Wait.BUSY


def test_retries_stay_a_tenth_of_requests() -> None:
    budget = RetryBudget()
    while budget.spend():
        pass
    retries = 0
    for _ in range(1000):
        budget.earn()
        retries += budget.spend()
    assert 95 <= retries <= 100


def test_a_long_calm_saves_up_only_so_much() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.earn()
    assert sum(budget.spend() for _ in range(1000)) == 20
