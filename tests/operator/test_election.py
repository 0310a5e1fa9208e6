"""At no moment do two processes write, however slow, paused or unlucky they are."""

import asyncio
import copy
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_operator.cluster.election import Election, ElectionTiming
from llm_operator.cluster.kinds import Kind
from llm_operator.cluster.objects import RequestFailed

Json = dict[str, Any]


@dataclass
class Leases:
    """The API server as far as Leases go: a version on each, and a conflict for a stale one."""

    lease: Json | None = None
    version: int = 0
    away: bool = False
    requests: list[str] = field(default_factory=list)

    async def get(self, _: Kind, namespace: str | None, name: str) -> Json | None:
        self._ask("get")
        assert (namespace, name) == ("ops", "llm-operator")
        return copy.deepcopy(self.lease)

    async def create(self, manifest: Json) -> Json:
        self._ask("create")
        if self.lease is not None:
            raise RequestFailed(409, "POST", "it is there already")
        return self._store(manifest)

    async def replace(self, manifest: Json) -> Json:
        self._ask("replace")
        if self.lease is None:
            raise RequestFailed(404, "PUT", "it is gone")
        if manifest["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise RequestFailed(409, "PUT", "it has changed")
        return self._store(manifest)

    def _ask(self, what: str) -> None:
        self.requests.append(what)
        if self.away:
            raise RequestFailed(0, what, "nobody answers")

    def _store(self, manifest: Json) -> Json:
        self.version += 1
        self.lease = copy.deepcopy(manifest)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


def a_claim(leases: Leases, identity: str, clock: Clock) -> Election:
    return Election(leases, "ops", identity, ElectionTiming(), clock)  # type: ignore[arg-type]


async def test_the_first_takes_a_lease_that_nobody_holds() -> None:
    leases, clock = Leases(), Clock()
    first, second = a_claim(leases, "a", clock), a_claim(leases, "b", clock)
    await first.attempt()
    await second.attempt()
    assert (first.leads, second.leads) == (True, False)


async def test_a_holder_that_goes_silent_is_succeeded_after_the_lease_has_run_out() -> None:
    leases, clock = Leases(), Clock()
    first, second = a_claim(leases, "a", clock), a_claim(leases, "b", clock)
    await first.attempt()
    await second.attempt()
    clock.now_s += 14.9
    await second.attempt()
    assert not second.leads
    clock.now_s += 0.2
    await second.attempt()
    assert second.leads
    assert not first.leads, "it knows without asking anybody"


async def test_a_holder_that_was_paused_does_not_take_it_back() -> None:
    leases, clock = Leases(), Clock()
    first, second = a_claim(leases, "a", clock), a_claim(leases, "b", clock)
    await first.attempt()
    await second.attempt()
    clock.now_s += 60
    await second.attempt()
    await first.attempt()
    assert (first.leads, second.leads) == (False, True)


async def test_a_holder_renews_with_one_request() -> None:
    leases, clock = Leases(), Clock()
    first = a_claim(leases, "a", clock)
    await first.attempt()
    leases.requests.clear()
    for _ in range(5):
        clock.now_s += 2
        await first.attempt()
    assert leases.requests == ["replace"] * 5
    assert first.leads


async def test_without_the_api_server_the_trust_runs_out_before_the_lease() -> None:
    leases, clock = Leases(), Clock()
    first = a_claim(leases, "a", clock)
    await first.attempt()
    leases.away = True
    clock.now_s += 9
    await first.attempt()
    assert first.leads
    clock.now_s += 2
    await first.attempt()
    assert not first.leads
    leases.away = False
    await first.attempt()
    assert first.leads


async def test_a_lease_that_somebody_deletes_is_taken_anew() -> None:
    leases, clock = Leases(), Clock()
    first = a_claim(leases, "a", clock)
    await first.attempt()
    leases.lease = None
    await first.attempt()
    await first.attempt()
    assert first.leads


async def test_giving_back_lets_the_next_one_lead_at_once() -> None:
    leases, clock = Leases(), Clock()
    first, second = a_claim(leases, "a", clock), a_claim(leases, "b", clock)
    running = asyncio.create_task(first.run())
    await first.won()
    await second.attempt()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not first.leads
    await second.attempt()
    assert second.leads


async def test_a_lease_of_odd_content_is_waited_out_and_crashes_nobody() -> None:
    leases, clock = Leases(), Clock()
    leases.lease = {
        "metadata": {"name": "llm-operator", "namespace": "ops", "resourceVersion": "1"},
        "spec": {"holderIdentity": "ghost", "leaseDurationSeconds": None},
    }
    first = a_claim(leases, "a", clock)
    await first.attempt()
    assert not first.leads
    clock.now_s += 16
    await first.attempt()
    assert first.leads


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["attempt 0", "attempt 1", "attempt 2", "away", "back"]),
        st.sampled_from([0.0, 0.5, 2.0, 5.0, 11.0, 16.0]),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=200, deadline=None)
def test_two_never_lead_at_once(steps: list[tuple[str, float]]) -> None:
    """A Lease that is deleted is no case: with it goes the memory of who holds it."""

    async def story() -> None:
        leases, clock = Leases(), Clock()
        claims = [a_claim(leases, identity, clock) for identity in "abc"]
        for what, wait_s in steps:
            clock.now_s += wait_s
            if what == "away":
                leases.away = True
            elif what == "back":
                leases.away = False
            elif what.startswith("attempt"):
                await claims[int(what[-1])].attempt()
            assert sum(claim.leads for claim in claims) <= 1

    asyncio.run(story())
