"""Which hardware the replicas get, and the words for it; a plan that works is kept."""

from collections.abc import Iterable
from dataclasses import replace

from llm_engine.contract.shape import ModelShape
from llm_operator.api.deployment_status import Plan
from llm_operator.api.parsing import AcceleratorClass, LLMDeployment
from llm_operator.planner.choice import Choice, choose


def plan_for(
    deployment: LLMDeployment, shape: ModelShape, classes: Iterable[AcceleratorClass]
) -> Choice:
    """Choose the hardware.

    The class in use stays for as long as the spec does and the model fits it: a node that comes or
    a price that falls must not restart replicas that serve well.
    """
    classes = tuple(classes)
    kept = deployment.status.plan
    if kept and deployment.status.observed_generation == deployment.metadata.generation:
        same = [each for each in classes if each.name == kept.accelerator]
        choice = choose(deployment.spec, shape, same)
        if choice.accelerator is not None:
            return replace(choice, because=_words(kept, choice))
    return choose(deployment.spec, shape, classes)


def _words(kept: Plan, choice: Choice) -> str:
    """Keep the words of the first choice, which knew the alternatives, while its numbers hold."""
    fit = choice.fit
    same = fit and (fit.needed_bytes, fit.kv_cache_bytes) == (
        kept.needed_bytes,
        kept.kv_cache_bytes,
    )
    return kept.because if same else choice.because


def plan_status(deployment: LLMDeployment, choice: Choice, replicas: int | None) -> Plan | None:
    """Return the plan as status shows it; None where nothing fits."""
    if choice.accelerator is None or choice.fit is None:
        return None
    return Plan(
        quantization=deployment.spec.quantization,
        accelerator=choice.accelerator.name,
        replicas=replicas,
        price_per_h=choice.accelerator.spec.price.per_h,
        needed_bytes=choice.fit.needed_bytes,
        kv_cache_bytes=choice.fit.kv_cache_bytes,
        kv_cache_tokens=choice.fit.kv_cache_tokens,
        because=choice.because,
    )
