"""What a person asks of an `LLMDeployment`. A field is here only if it does something."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import ConfigDict, Field, model_validator

from llm_engine.contract.quantization import Quantization
from llm_operator.api.model_spec import Model
from llm_operator.api.pod_template import OBJECT_NAME, PodTemplate
from llm_operator.api.rules import Rule, rules
from llm_operator.api.scalars import Duration, Money
from llm_operator.api.wire import Wire

MAX_REPLICAS: Final = 1000
MAX_ACCELERATORS: Final = 16
DEFAULT_IDLE_AFTER_S: Final = 600.0


class ScalingMode(StrEnum):
    """Who owns the number of replicas."""

    AUTO = "Auto"
    ADVISORY = "Advisory"
    MANUAL = "Manual"


class RuntimeType(StrEnum):
    """Which program serves the model."""

    NATIVE = "Native"


class Targets(Wire):
    """The trade-off: seconds against dollars. A target that is absent asks for nothing."""

    time_to_first_token_s: Annotated[float, Duration("1ms", "10m")] | None = Field(
        default=None,
        alias="timeToFirstToken",
        description="Longest time from a request to its first token, for `percentile` % of"
        " requests.",
        examples=["500ms"],
    )
    time_per_output_token_s: Annotated[float, Duration("1ms", "1m")] | None = Field(
        default=None,
        alias="timePerOutputToken",
        description="Longest mean time between the tokens of one answer, for `percentile` % of"
        " requests.",
        examples=["50ms"],
    )
    percentile: int = Field(
        default=95,
        ge=50,
        le=99,
        description="Share of requests, in percent, for which the times above must hold.",
        examples=[95],
    )
    max_cost_per_h: Annotated[Decimal, Money()] | None = Field(
        default=None,
        alias="maxCostPerHour",
        description="Most that all replicas together may cost per hour, in the currency of the"
        " AcceleratorClass prices: a cap on replicas. Wins over the times above.",
        examples=["12.00"],
    )


class Hardware(Wire):
    """Where replicas may run."""

    accelerators: list[Annotated[str, OBJECT_NAME]] = Field(
        default=[],
        max_length=MAX_ACCELERATORS,
        description="Names of the AcceleratorClasses to choose from: the cheapest in which the"
        " model fits is taken. Empty: any of the cluster.",
        examples=[["nvidia-l4", "nvidia-a10g"]],
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class ScaleDown(Wire):
    """How carefully replicas are taken away."""

    stabilization_s: Annotated[float, Duration("0s", "24h")] = Field(
        default=300.0,
        alias="stabilization",
        description="How long fewer replicas must have sufficed before one is taken away.",
        examples=["5m"],
    )
    max_step: int = Field(
        default=1,
        ge=1,
        le=MAX_REPLICAS,
        description="Most replicas taken away at once.",
        examples=[1],
    )


class Scaling(Wire):
    """How many replicas, and who decides."""

    min_replicas: int | None = Field(
        default=None,
        ge=0,
        le=MAX_REPLICAS,
        description="Fewest replicas, 1 where absent; 0 lets an idle model stop, and its next"
        " request wakes it. Not in mode Manual.",
        examples=[0],
    )
    max_replicas: int | None = Field(
        default=None,
        ge=1,
        le=MAX_REPLICAS,
        description="Most replicas; where absent the same as minReplicas, and at least 1. Not in"
        " mode Manual.",
        examples=[8],
    )
    mode: ScalingMode = Field(
        default=ScalingMode.AUTO,
        description="Auto: the operator sets the replicas. Advisory: it only writes in"
        " status.decisions what it would do. Manual: spec.replicas (kubectl scale) is the number.",
        examples=["Auto"],
    )
    idle_after_s: Annotated[float, Duration("10s", "168h")] | None = Field(
        default=None,
        alias="idleAfter",
        description="How long without a request before the last replica stops, 10m where absent."
        " Only with minReplicas 0.",
        examples=["10m"],
    )
    scale_down: ScaleDown = Field(
        default=ScaleDown(),
        description="How carefully replicas are taken away.",
        examples=[{"stabilization": "5m", "maxStep": 1}],
    )


class Runtime(Wire):
    """Which program serves the model."""

    type: RuntimeType = Field(
        default=RuntimeType.NATIVE,
        description="Native: llm-engine, the engine that comes with the operator.",
        examples=["Native"],
    )


class Drain(Wire):
    """How a replica ends."""

    timeout_s: Annotated[float, Duration("0s", "1h")] = Field(
        default=60.0,
        alias="timeout",
        description="How long a replica that stops may go on to finish its running requests.",
        examples=["60s"],
    )


_MANUAL: Final = "self.scaling.mode == 'Manual'"
_LIMITS: Final = "has(self.scaling.minReplicas) || has(self.scaling.maxReplicas)"
_SPEC_RULES: Final = rules(
    Rule(
        f"{_MANUAL} || !has(self.replicas)",
        "may be set only where scaling.mode is Manual; elsewhere the operator chooses between"
        " scaling.minReplicas and scaling.maxReplicas",
        "self.scaling.mode",
        field_path=".replicas",
        but="; scaling.mode is ",
    ),
    Rule(
        f"!({_MANUAL}) || !({_LIMITS})",
        "minReplicas and maxReplicas may not be set where mode is Manual: spec.replicas is the"
        " number",
        field_path=".scaling",
    ),
    Rule(
        "!has(self.scaling.minReplicas) || !has(self.scaling.maxReplicas)"
        " || self.scaling.minReplicas <= self.scaling.maxReplicas",
        "must be at most scaling.maxReplicas",
        "'%d; scaling.maxReplicas is %d'"
        ".format([self.scaling.minReplicas, self.scaling.maxReplicas])",
        field_path=".scaling.minReplicas",
    ),
    Rule(
        "!has(self.scaling.idleAfter)"
        " || has(self.scaling.minReplicas) && self.scaling.minReplicas == 0",
        "may be set only where scaling.minReplicas is 0: otherwise no replica stops for idleness",
        field_path=".scaling.idleAfter",
    ),
)


class LLMDeploymentSpec(Wire):
    """A model, how well it is to be served, and for how much."""

    model_config = ConfigDict(json_schema_extra=_SPEC_RULES)

    model: Model = Field(
        description="Which model to serve, and under which name.",
        examples=[{"source": "pvc://models/smollm2-135m"}],
    )
    quantization: Quantization = Field(
        default=Quantization.NONE,
        description="How the weights of the linear layers are kept in memory. None: as the engine"
        " computes. Int8, FP8: one byte per weight. Int4: five bits per weight, and a loss of"
        " quality that small models feel.",
        examples=["Int8"],
    )
    targets: Targets = Field(
        default=Targets(),
        description="The trade-off: seconds against dollars. A target that is absent asks for"
        " nothing.",
        examples=[{"timeToFirstToken": "500ms", "timePerOutputToken": "50ms"}],
    )
    hardware: Hardware = Field(
        default=Hardware(),
        description="Where replicas may run.",
        examples=[{"accelerators": ["nvidia-l4"]}],
    )
    scaling: Scaling = Field(
        default=Scaling(),
        description="How many replicas, and who decides.",
        examples=[{"minReplicas": 1, "maxReplicas": 8}],
    )
    replicas: int | None = Field(
        default=None,
        ge=0,
        le=MAX_REPLICAS,
        description="Number of replicas; only where scaling.mode is Manual, for kubectl scale. The"
        " number stays as it is where absent.",
        examples=[2],
    )
    runtime: Runtime = Field(
        default=Runtime(),
        description="Which program serves the model.",
        examples=[{"type": "Native"}],
    )
    drain: Drain = Field(
        default=Drain(),
        description="How a replica ends.",
        examples=[{"timeout": "60s"}],
    )
    template: PodTemplate = Field(
        default=PodTemplate(),
        description="What is added to the pods of the replicas.",
        examples=[{"resources": {"requests": {"cpu": "2", "memory": "4Gi"}}}],
    )

    @property
    def min_replicas(self) -> int:
        """Fewest replicas in modes Auto and Advisory."""
        return 1 if self.scaling.min_replicas is None else self.scaling.min_replicas

    @property
    def max_replicas(self) -> int:
        """Most replicas in modes Auto and Advisory, at least 1."""
        return self.scaling.max_replicas or max(self.min_replicas, 1)

    @property
    def idle_after_s(self) -> float:
        """Seconds without a request before the last replica stops, where min_replicas is 0."""
        idle_after_s = self.scaling.idle_after_s
        return DEFAULT_IDLE_AFTER_S if idle_after_s is None else idle_after_s

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        """Hold the rules between fields that the API server holds with CEL."""
        manual = self.scaling.mode is ScalingMode.MANUAL
        least, most = self.scaling.min_replicas, self.scaling.max_replicas
        if self.replicas is not None and not manual:
            raise ValueError("replicas may be set only where scaling.mode is Manual")
        if manual and not (least is None and most is None):
            raise ValueError("scaling.minReplicas and maxReplicas may not be set in mode Manual")
        if least is not None and most is not None and least > most:
            raise ValueError(f"scaling.minReplicas must be at most {most}, not {least}")
        if self.scaling.idle_after_s is not None and least != 0:
            raise ValueError("scaling.idleAfter may be set only where scaling.minReplicas is 0")
        return self
