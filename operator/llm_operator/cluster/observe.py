"""One LLMDeployment and all that belongs to it, read from the store into one typed picture."""

from typing import Any, TypeAlias

from llm_operator.api.parsing import AcceleratorClass, InvalidObject, parse_accelerator_class
from llm_operator.api.served_names import claim_of
from llm_operator.cluster.kinds import POD
from llm_operator.cluster.memory import Memory
from llm_operator.cluster.store import Store
from llm_operator.cluster.work_queue import Key
from llm_operator.reconcile.observed import Observed
from llm_operator.reconcile.pods import pod_of
from llm_operator.scaling import Samples

Json: TypeAlias = dict[str, Any]


def observe(store: Store, key: Key, memory: Memory, samples: Samples) -> Observed | None:
    """Return what is known of an LLMDeployment; None where there is no such object."""
    deployment = store.deployment(key)
    if deployment is None:
        return None
    family = list(store.family(key))
    claim = claim_of(deployment)
    return Observed(
        deployment=deployment,
        children=tuple(child for child in family if child["kind"] != POD.name),
        pods=tuple(pod_of(child) for child in family if child["kind"] == POD.name),
        accelerators=tuple(_accelerators(store)),
        name_owner=store.name_owner(claim.served_name) if claim else None,
        obstacle=memory.obstacle,
        samples=samples,
        scaling=memory.scaling,
        reported_s=memory.reported_s,
    )


def _accelerators(store: Store) -> list[AcceleratorClass]:
    """Return the classes that parse: one that does not is its author's affair."""
    classes = []
    for raw in store.accelerators():
        try:
            classes.append(parse_accelerator_class(raw))
        except InvalidObject:
            continue
    return classes
