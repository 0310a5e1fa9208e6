"""The scheduling policy computes less twice than preempting the newest would."""

from benchmarks.preemption import compare, newest_first
from llm_engine.scheduling.plan import least_computed


def test_ours_computes_at_least_a_quarter_less_twice_than_newest_first() -> None:
    recomputed = {
        (policy.choose_victim, policy.reserve_tokens > 0, policy.keeps_prefixes): outcome
        for policy, outcome in compare(requests=120, seeds=(1,))
    }
    newest = recomputed[newest_first, False, False].recomputed_tokens
    assert recomputed[least_computed, False, False].recomputed_tokens < 0.75 * newest
    assert recomputed[least_computed, True, False].recomputed_tokens < 0.1 * newest
    assert recomputed[least_computed, True, True].recomputed_tokens < 0.1 * newest
