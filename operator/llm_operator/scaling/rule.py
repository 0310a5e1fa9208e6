"""What the owner of an LLMDeployment asks of its number of replicas, in plain numbers."""

from dataclasses import dataclass
from decimal import Decimal

from llm_operator.api.deployment_spec import MAX_REPLICAS, LLMDeploymentSpec, ScalingMode


@dataclass(frozen=True)
class ScalingRule:
    """Bounds, targets and money; None means that nothing was asked.

    percentile       of requests (0-100) that are to meet both targets
    price_per_h      of one replica; None: unknown, then the budget cannot bind
    budget_per_h     never exceeded; pending and terminating replicas count
    stabilization_s  how long fewer replicas must have been enough before one goes
    max_step         replicas that may go at once
    idle_after_s     without a request, until the last replica goes; only where min_replicas is 0
    cold_start_s     from ordering a replica until it serves, as measured or estimated
    """

    min_replicas: int
    max_replicas: int
    time_to_first_token_s: float | None = None
    time_per_output_token_s: float | None = None
    percentile: float = 95.0
    price_per_h: Decimal | None = None
    budget_per_h: Decimal | None = None
    stabilization_s: float = 300.0
    max_step: int = 1
    idle_after_s: float = 600.0
    cold_start_s: float = 60.0

    @property
    def affordable(self) -> int | None:
        """Replicas that the budget pays for; None when it cannot bind."""
        if self.budget_per_h is None or not self.price_per_h:
            return None
        return int(self.budget_per_h // self.price_per_h)

    @property
    def ceiling(self) -> int:
        """The most replicas that may ever be ordered."""
        if self.affordable is None:
            return self.max_replicas
        return min(self.max_replicas, self.affordable)

    @property
    def floor(self) -> int:
        """The fewest replicas that may be ordered; money goes before the minimum."""
        return min(self.min_replicas, self.ceiling)


def rule_of(
    spec: LLMDeploymentSpec, price_per_h: Decimal | None, cold_start_s: float = 60.0
) -> ScalingRule:
    """Return the rule of a spec; in mode Manual the law may wish for any number.

    price_per_h   of one replica on the planned accelerator; None: unknown
    cold_start_s  from ordering a replica until it serves, as last measured
    """
    manual = spec.scaling.mode is ScalingMode.MANUAL
    return ScalingRule(
        min_replicas=1 if manual else spec.min_replicas,
        max_replicas=MAX_REPLICAS if manual else spec.max_replicas,
        time_to_first_token_s=spec.targets.time_to_first_token_s,
        time_per_output_token_s=spec.targets.time_per_output_token_s,
        percentile=float(spec.targets.percentile),
        price_per_h=price_per_h,
        budget_per_h=spec.targets.max_cost_per_h,
        stabilization_s=spec.scaling.scale_down.stabilization_s,
        max_step=spec.scaling.scale_down.max_step,
        idle_after_s=spec.idle_after_s,
        cold_start_s=cold_start_s,
    )
