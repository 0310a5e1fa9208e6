"""The Deployment of the replicas."""

import math
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from llm_engine.contract.arguments import DEFAULT_PORT, ServeArguments
from llm_operator.api import names
from llm_operator.api.accelerator import AcceleratorClassSpec
from llm_operator.api.parsing import AcceleratorClass, LLMDeployment
from llm_operator.api.scalars import format_quantity
from llm_operator.planner.choice import CPU, Choice, memory_of
from llm_operator.reconcile.identity import (
    child_metadata,
    engine_name,
    labels,
    selector_labels,
)
from llm_operator.reconcile.observed import EngineSettings
from llm_operator.reconcile.pod_spec import model_access, restricted_container, restricted_pod

Json: TypeAlias = dict[str, Any]

PRE_STOP_S: Final = 5  # endpoints and gateways forget the replica before it hears SIGTERM
_KILL_MARGIN_S: Final = 10
_SLOWEST_LOAD_BYTES_PER_S: Final = 200e6
_SHORTEST_START_S: Final = 600.0
_ROLLOUT_MARGIN_S: Final = 120
_HOST_MEMORY: Final = "4Gi"  # torch, CUDA's libraries, weights on their way to the accelerator


@dataclass(frozen=True)
class Fitted:
    """The hardware that was chosen, with the memory it leaves for keys and values."""

    accelerator: AcceleratorClass
    kv_cache_bytes: int

    @classmethod
    def of(cls, choice: Choice) -> "Fitted | None":
        """Return the choice where there is one."""
        if choice.accelerator is None or choice.fit is None:
            return None
        return cls(choice.accelerator, choice.fit.kv_cache_bytes)


def engine_manifest(
    deployment: LLMDeployment, fitted: Fitted, replicas: int, settings: EngineSettings
) -> Json:
    """Return the Deployment: plain Kubernetes does rollouts, replacement and eviction."""
    name = engine_name(deployment.metadata.name)
    template = deployment.spec.template
    start_s = start_budget_s(deployment)
    metadata = child_metadata(deployment.metadata, name, names.ENGINE_COMPONENT)
    pod_labels = labels(deployment.metadata.name, names.ENGINE_COMPONENT)
    pod_metadata: Json = {"labels": {**template.labels, **pod_labels}}
    if template.annotations:
        pod_metadata["annotations"] = dict(template.annotations)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": math.ceil(start_s) + _ROLLOUT_MARGIN_S,
            "selector": {
                "matchLabels": selector_labels(deployment.metadata.name, names.ENGINE_COMPONENT)
            },
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": {
                "metadata": pod_metadata,
                "spec": _pod(deployment, fitted, start_s, settings),
            },
        },
    }


def start_budget_s(deployment: LLMDeployment) -> float:
    """Return how long a replica may take to start: three times a slow read, at least 10 minutes."""
    model = deployment.status.model
    size_bytes = max(model.file_bytes or 0, model.weight_bytes) if model else 0
    return max(_SHORTEST_START_S, 3 * size_bytes / _SLOWEST_LOAD_BYTES_PER_S)


def _pod(
    deployment: LLMDeployment, fitted: Fitted, start_s: float, settings: EngineSettings
) -> Json:
    spec = deployment.spec
    access = model_access(spec)
    on_cpu = fitted.accelerator.spec.resource_name == CPU
    arguments = ServeArguments(
        model=access.argument,
        served_name=deployment.served_name,
        quantization=spec.quantization,
        device="cpu" if on_cpu else "cuda",
        max_context_tokens=spec.model.max_context_tokens,
        kv_cache_bytes=fitted.kv_cache_bytes,
        drain_s=spec.drain.timeout_s,
        tpot_target_s=spec.targets.time_per_output_token_s,
    )
    container = restricted_container(names.ENGINE_CONTAINER, settings, access)
    # Without a limit this is the node's number; with one, more threads would only be throttled.
    threads = {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}}
    container["env"].append({"name": "OMP_NUM_THREADS", "valueFrom": threads})
    container |= {
        "command": ["llm-engine"],
        "args": arguments.command_line(),
        "ports": [
            {"name": names.ENGINE_PORT_NAME, "containerPort": DEFAULT_PORT, "protocol": "TCP"}
        ],
        "resources": resources(deployment, fitted),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_S}}},
        **_probes(start_s),
    }
    pod = restricted_pod(container, spec, settings, access)
    grace_s = PRE_STOP_S + math.ceil(spec.drain.timeout_s) + _KILL_MARGIN_S
    pod["terminationGracePeriodSeconds"] = grace_s
    _add_placement(pod, fitted.accelerator.spec)
    return pod


def _add_placement(pod: Json, accelerator: AcceleratorClassSpec) -> None:
    """Add the nodes of the accelerator to what the user asked for; the user's word wins."""
    selector = {**accelerator.node_selector, **pod.get("nodeSelector", {})}
    if selector:
        pod["nodeSelector"] = selector
    tolerations = [toleration.to_wire() for toleration in accelerator.tolerations]
    wanted = pod.get("tolerations", [])
    tolerations = wanted + [toleration for toleration in tolerations if toleration not in wanted]
    if tolerations:
        pod["tolerations"] = tolerations


def resources(deployment: LLMDeployment, fitted: Fitted) -> Json:
    """Return requests and limits: the accelerators, and the planned memory where nobody says."""
    asked = deployment.spec.template.resources
    requests = asked.requests.to_wire() if asked.requests else {}
    limits = asked.limits.to_wire() if asked.limits else {}
    accelerator = fitted.accelerator.spec
    if accelerator.resource_name == CPU:
        requests = {"cpu": str(accelerator.count)} | requests
        memory = memory_of(fitted.accelerator, deployment.spec)
        if memory and "memory" not in limits:
            requests.setdefault("memory", format_quantity(memory.total_bytes))
    else:
        requests = {"memory": _HOST_MEMORY} | requests
        limits[accelerator.resource_name] = str(accelerator.count)
        requests[accelerator.resource_name] = str(accelerator.count)
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _probes(start_s: float) -> Json:
    """Return the three probes: slow to start is not dead, busy is not dead."""

    def get(path: str) -> Json:
        return {"httpGet": {"path": path, "port": names.ENGINE_PORT_NAME, "scheme": "HTTP"}}

    every_2_s = {"periodSeconds": 2, "timeoutSeconds": 2}
    return {
        "startupProbe": get("/startupz") | every_2_s | {"failureThreshold": math.ceil(start_s / 2)},
        "readinessProbe": get("/readyz") | every_2_s | {"failureThreshold": 2},
        "livenessProbe": get("/livez")
        | {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
    }
