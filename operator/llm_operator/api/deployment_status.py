"""What the operator has seen of an `LLMDeployment`, and why it acted as it did."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from llm_engine.contract.quantization import Quantization
from llm_engine.contract.shape import ModelShape
from llm_operator.api.scalars import Elapsed, Measured, Money, Timestamp
from llm_operator.api.wire import Wire

MAX_DECISIONS: Final = 10
MESSAGE_LENGTH: Final = 4096


def _cut(text: str) -> str:
    """Keep the beginning of words that somebody else made too long, as a pod's last lines are."""
    return text if len(text) <= MESSAGE_LENGTH else f"{text[: MESSAGE_LENGTH - 1]}…"


_Elapsed = Annotated[float, Elapsed()]
_Words = Annotated[
    str, AfterValidator(_cut), WithJsonSchema({"type": "string", "maxLength": MESSAGE_LENGTH})
]


class ConditionType(StrEnum):
    """The conditions of an LLMDeployment; all are set from the first visit on."""

    READY = "Ready"
    ACCEPTED = "Accepted"
    TARGETS_ACHIEVABLE = "TargetsAchievable"
    AVAILABLE = "Available"
    PROGRESSING = "Progressing"
    METRICS_AVAILABLE = "MetricsAvailable"
    TARGETS_MET = "TargetsMet"
    WITHIN_BUDGET = "WithinBudget"


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Wire):
    """One finding about the object, in the form that all of Kubernetes uses."""

    type: Annotated[str, Field(max_length=316)] = Field(
        description="What it is about: Ready, Accepted, TargetsAchievable, Available, Progressing,"
        " MetricsAvailable, TargetsMet or WithinBudget.",
        examples=["Ready"],
    )
    status: ConditionStatus = Field(description="Whether it holds.", examples=["True"])
    reason: Annotated[str, Field(max_length=1024)] = Field(
        description="Why, in one CamelCase word.", examples=["Serving"]
    )
    message: _Words = Field(
        description="Why, in words, and what to do.", examples=["2 of 2 replicas answer"]
    )
    last_transition_time: Annotated[datetime, Timestamp()] = Field(
        description="When status last changed.", examples=["2026-01-31T12:00:00Z"]
    )
    observed_generation: int | None = Field(
        default=None,
        ge=0,
        description="metadata.generation of the spec that this is about.",
        examples=[3],
    )


class StatusShape(ModelShape):
    """The shape of the model, spelt as the custom resource spells things."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True
    )


class ModelStatus(Wire):
    """What inspecting the model's configuration and weight headers has shown."""

    source: Annotated[str, Field(max_length=512)] = Field(
        description="spec.model.source that was inspected.", examples=["pvc://models/smollm2"]
    )
    architecture: str = Field(description="Family of the decoder.", examples=["llama"])
    parameters: int = Field(description="Count of all weights.", examples=[134_515_008])
    weight_bytes: int = Field(
        description="Bytes of the weights in memory, as quantized.", examples=[269_030_016]
    )
    kv_bytes_per_token: int = Field(
        description="Bytes of keys and values that one token keeps.", examples=[23_040]
    )
    context_tokens: int = Field(
        description="Longest context of one request, in tokens.", examples=[8192]
    )
    file_bytes: int | None = Field(
        default=None, description="Bytes of all weight files.", examples=[98_000_000]
    )
    file_format: str | None = Field(
        default=None, description="safetensors or gguf.", examples=["gguf"]
    )
    shape: StatusShape | None = Field(
        default=None,
        description="Numbers from which memory and arithmetic follow.",
        examples=[{"layers": 30, "hiddenSize": 576}],
    )


class Plan(Wire):
    """What is run, and why this."""

    quantization: Quantization = Field(
        description="How weights are kept in memory.", examples=["Int8"]
    )
    accelerator: str = Field(
        description="Name of the AcceleratorClass of the replicas.", examples=["nvidia-l4"]
    )
    replicas: int | None = Field(
        default=None, ge=0, description="Replicas that are wanted now.", examples=[2]
    )
    price_per_h: Annotated[Decimal, Money(free=True)] | None = Field(
        default=None,
        alias="pricePerHour",
        description="What one replica costs per hour.",
        examples=["0.805"],
    )
    needed_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Memory that weights, workspace and one request of the longest context take.",
        examples=[1_500_000_000],
    )
    kv_cache_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Memory that is left for keys and values.",
        examples=[20_000_000_000],
    )
    kv_cache_tokens: int | None = Field(
        default=None, ge=0, description="Tokens whose keys and values fit.", examples=[860_000]
    )
    because: _Words = Field(
        description="Why this, in words with numbers.",
        examples=["needs 1.4 GiB; nvidia-l4 has 22.5; cheapest of 3 that fit"],
    )


class Observed(Wire):
    """What was measured over the last minute, rounded; absent where nothing is known."""

    time_to_first_token_s: _Elapsed | None = Field(
        default=None,
        alias="timeToFirstToken",
        description="Time to first token at targets.percentile.",
        examples=["412ms"],
    )
    time_per_output_token_s: _Elapsed | None = Field(
        default=None,
        alias="timePerOutputToken",
        description="Time per output token at targets.percentile.",
        examples=["38ms"],
    )
    requests_per_s: Annotated[float, Measured()] | None = Field(
        default=None,
        alias="requestsPerSecond",
        description="Requests that arrive per second.",
        examples=["2.4"],
    )
    output_tokens_per_s: Annotated[float, Measured()] | None = Field(
        default=None,
        alias="outputTokensPerSecond",
        description="Tokens generated per second by all replicas.",
        examples=["310"],
    )
    attainment: Annotated[float, Measured()] | None = Field(
        default=None,
        description="Share of requests within the targets, 0 to 1.",
        examples=["0.98"],
    )
    cost_per_h: Annotated[Decimal, Money(free=True)] | None = Field(
        default=None,
        alias="costPerHour",
        description="What all replicas cost per hour, pending and stopping ones too.",
        examples=["1.61"],
    )
    held_requests: int | None = Field(
        default=None, description="Requests that wait at the gateways.", examples=[0]
    )
    running_requests: int | None = Field(
        default=None, description="Requests being answered.", examples=[5]
    )
    waiting_requests: int | None = Field(
        default=None, description="Requests queued in replicas.", examples=[1]
    )


class ColdStart(Wire):
    """How long the latest replica took to become ready, by phase."""

    scheduling_s: _Elapsed | None = Field(
        default=None, alias="scheduling", description="Until it had a node.", examples=["1s"]
    )
    pulling_s: _Elapsed | None = Field(
        default=None, alias="pulling", description="Until its container ran.", examples=["12s"]
    )
    loading_s: _Elapsed | None = Field(
        default=None, alias="loading", description="Until weights were loaded.", examples=["9s"]
    )
    warmup_s: _Elapsed | None = Field(
        default=None, alias="warmup", description="Until its first token.", examples=["2s"]
    )


class Decision(Wire):
    """One change of the number of replicas."""

    time: Annotated[datetime, Timestamp()] = Field(
        description="When it was decided.", examples=["2026-01-31T12:00:00Z"]
    )
    from_replicas: int = Field(alias="from", description="Replicas before.", examples=[1])
    to_replicas: int = Field(alias="to", description="Replicas after.", examples=[3])
    reason: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="Why, in one CamelCase word.", examples=["Demand"]
    )
    because: _Words = Field(
        description="Why, in words with numbers.",
        examples=["4.2 requests/s; one replica serves 1.6 within targets"],
    )
    inputs: dict[str, float | int | str] = Field(
        default={},
        max_length=32,
        description="Numbers it was decided from.",
        examples=[{"requestsPerSecond": 4.2}],
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )


class LLMDeploymentStatus(Wire):
    """What the operator has seen, and why it acted as it did."""

    observed_generation: int | None = Field(
        default=None,
        ge=0,
        description="metadata.generation of the spec that this is about.",
        examples=[3],
    )
    conditions: list[Condition] = Field(
        default=[],
        max_length=16,
        description="Findings by type; Ready sums them up.",
        examples=[[{"type": "Ready", "status": "True", "reason": "Serving"}]],
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    )
    model: ModelStatus | None = Field(
        default=None,
        description="What inspecting the model has shown.",
        examples=[{"architecture": "llama"}],
    )
    plan: Plan | None = Field(
        default=None,
        description="What is run, and why this.",
        examples=[{"accelerator": "nvidia-l4", "quantization": "Int8"}],
    )
    replicas: int | None = Field(
        default=None, ge=0, description="Replicas that exist.", examples=[2]
    )
    ready_replicas: int | None = Field(
        default=None, ge=0, description="Replicas that answer requests.", examples=[2]
    )
    selector: Annotated[str, Field(max_length=1024)] | None = Field(
        default=None,
        description="Labels of the replicas' pods, for the scale subresource.",
        examples=["llm-operator.dev/deployment=smollm2"],
    )
    observed: Observed | None = Field(
        default=None,
        description="What was measured over the last minute, rounded.",
        examples=[{"timeToFirstToken": "412ms"}],
    )
    cold_start: ColdStart | None = Field(
        default=None,
        description="How long the latest replica took to become ready, by phase.",
        examples=[{"loading": "9s"}],
    )
    decisions: list[Decision] = Field(
        default=[],
        max_length=MAX_DECISIONS,
        description="The last changes of the number of replicas, newest first.",
        examples=[[{"from": 1, "to": 3}]],
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    scaling: dict[str, Any] | None = Field(
        default=None,
        description="What the scaling law remembers from tick to tick, so that a restart of the"
        " operator forgets nothing. Of no use to others: its form may change.",
        examples=[{"wants": []}],
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )
