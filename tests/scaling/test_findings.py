"""The rule read from a spec, and what users are told in conditions."""

from decimal import Decimal

from llm_operator.api.deployment_spec import MAX_REPLICAS, LLMDeploymentSpec
from llm_operator.scaling import Samples, findings, load_of, rule_of
from tests.scaling.builders import LOST, a_load, a_rule, seen

MODEL = {"source": "pvc://models/smollm2"}


def test_the_rule_is_the_spec_in_plain_numbers() -> None:
    spec = LLMDeploymentSpec.model_validate(
        {
            "model": MODEL,
            "targets": {
                "timeToFirstToken": "2s",
                "timePerOutputToken": "200ms",
                "percentile": 90,
                "maxCostPerHour": "1.50",
            },
            "scaling": {
                "minReplicas": 0,
                "maxReplicas": 4,
                "idleAfter": "2m",
                "scaleDown": {"stabilization": "30s", "maxStep": 2},
            },
        }
    )
    rule = rule_of(spec, Decimal("0.40"), cold_start_s=25.0)
    assert (rule.min_replicas, rule.max_replicas, rule.affordable, rule.ceiling) == (0, 4, 3, 3)
    assert (rule.time_to_first_token_s, rule.time_per_output_token_s) == (2.0, 0.2)
    assert (rule.percentile, rule.stabilization_s, rule.max_step) == (90, 30, 2)
    assert (rule.idle_after_s, rule.cold_start_s) == (120, 25)


def test_in_mode_manual_the_law_may_wish_for_any_number() -> None:
    spec = LLMDeploymentSpec.model_validate({"model": MODEL, "scaling": {"mode": "Manual"}})
    rule = rule_of(spec, None)
    assert (rule.min_replicas, rule.max_replicas) == (1, MAX_REPLICAS)


def test_nothing_scraped_yet_is_unknown_and_a_loss_is_named_with_its_number() -> None:
    young = load_of([], 0, Samples(5.0))
    assert findings.metrics_available(a_load(known=False)).holds is None
    assert findings.metrics_available(young).reason == "NoGateway"
    many = findings.metrics_available(a_load(gaps=(LOST,) * 5))
    assert many.holds is False
    assert many.message.endswith("and 2 more")


def test_targets_are_met_missed_or_unknown() -> None:
    fast, slow = seen(*[0.1] * 20), seen(*[0.4] * 20)
    rule, none = a_rule(), a_rule(time_to_first_token_s=None, time_per_output_token_s=None)
    assert findings.targets_met(none, a_load(), None).reason == "NoTargets"
    assert findings.targets_met(rule, a_load(), None).holds is None
    assert findings.targets_met(rule, a_load(seen_per_token=fast), None).reason == "Met"
    missed = findings.targets_met(rule, a_load(seen_per_token=slow), None)
    assert missed.reason == "Missed"
    assert "per output token (target 200 ms)" in missed.message


def test_money_is_unknown_without_a_price_and_unbounded_without_a_budget() -> None:
    unknown = a_rule(price_per_h=None, budget_per_h=Decimal(5))
    assert findings.within_budget(unknown, a_load(), 1, 1).reason == "PriceUnknown"
    assert findings.within_budget(a_rule(), a_load(), 1, 1).reason == "NoBudget"
    rich = a_rule(budget_per_h=Decimal(5))
    assert findings.within_budget(rich, a_load(), 1, 1).message == "1.00 of 5.00 per hour"


def test_what_is_observed_is_rounded_and_absent_where_not_known() -> None:
    told = findings.observed(a_rule(), a_load(1.23456, seen_per_token=seen(0.1, 0.3)), 1)
    assert (told.requests_per_s, told.attainment) == (1.23, 0.5)
    assert (told.cost_per_h, told.time_to_first_token_s) == (Decimal("1.00"), None)
    dark = findings.observed(a_rule(), a_load(known=False), 1)
    assert (dark.requests_per_s, dark.running_requests) == (None, None)
