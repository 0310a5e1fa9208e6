"""`AcceleratorClass`: one kind of hardware that a replica can run on, and what it costs."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from llm_operator.api.pod_template import Labels, Tolerations
from llm_operator.api.scalars import Money, Quantity, Text
from llm_operator.api.wire import Wire

_RESOURCE_NAME = Text(
    form="^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
    allowed="cpu or the name of an extended resource such as nvidia.com/gpu",
    at_most=317,
)
_CURRENCY = Text(form="^[A-Z]{3}$", allowed="a currency code such as USD", at_most=3)


class Peak(Wire):
    """Most that one accelerator computes per second, dense, by number format."""

    bf16_flop_per_s: Annotated[int, Quantity()] | None = Field(
        default=None,
        alias="bf16",
        description="bf16 (fp16 where it has no bf16), FLOP/s.",
        examples=["989T"],
    )
    fp8_flop_per_s: Annotated[int, Quantity()] | None = Field(
        default=None, alias="fp8", description="fp8, FLOP/s.", examples=["1979T"]
    )
    int8_op_per_s: Annotated[int, Quantity()] | None = Field(
        default=None, alias="int8", description="int8, operations/s.", examples=["1979T"]
    )
    int4_op_per_s: Annotated[int, Quantity()] | None = Field(
        default=None, alias="int4", description="int4, operations/s.", examples=["1321T"]
    )


class Price(Wire):
    """What one replica's worth of this hardware (`count` accelerators) costs."""

    per_h: Annotated[Decimal, Money(free=True)] | None = Field(
        default=None, alias="perHour", description="Per hour, on demand.", examples=["0.805"]
    )
    spot_per_h: Annotated[Decimal, Money(free=True)] | None = Field(
        default=None,
        alias="spotPerHour",
        description="Per hour, where it may be taken away.",
        examples=["0.44"],
    )
    currency: Annotated[str, _CURRENCY] = Field(
        default="USD", description="Currency of the prices.", examples=["USD"]
    )


class AcceleratorClassSpec(Wire):
    """One kind of hardware that a replica can run on."""

    resource_name: Annotated[str, _RESOURCE_NAME] = Field(
        description="Resource that a pod asks for, as the device plugin names it; cpu for none.",
        examples=["nvidia.com/gpu"],
    )
    count: int = Field(
        default=1, ge=1, le=64, description="How many of it one replica takes.", examples=[1]
    )
    memory_bytes: Annotated[int, Quantity()] | None = Field(
        default=None,
        alias="memory",
        description="Memory of one accelerator, in bytes. Absent, as for the CPU:"
        " spec.template.resources of the LLMDeployment says it.",
        examples=["24Gi"],
    )
    memory_bandwidth_bytes_per_s: Annotated[int, Quantity()] | None = Field(
        default=None,
        alias="memoryBandwidth",
        description="Bytes per second that one accelerator reads from its memory.",
        examples=["300G"],
    )
    peak: Peak = Field(
        default=Peak(),
        description="Most that one accelerator computes per second, dense, by number format.",
        examples=[{"bf16": "121T", "int8": "242T"}],
    )
    interconnect_bytes_per_s: Annotated[int, Quantity()] | None = Field(
        default=None,
        alias="interconnect",
        description="Bytes per second between one accelerator and the others of its node, both"
        " directions together.",
        examples=["900G"],
    )
    compute_capability: int | None = Field(
        default=None,
        ge=10,
        le=999,
        description="CUDA compute capability times ten; NVIDIA only.",
        examples=[89],
    )
    price: Price = Field(
        default=Price(),
        description="What one replica's worth of this hardware (`count` of it) costs.",
        examples=[{"perHour": "0.805", "currency": "USD"}],
    )
    node_selector: Labels = Field(
        default={},
        description="Labels of the nodes that have this hardware.",
        examples=[{"nvidia.com/gpu.product": "NVIDIA-L4"}],
    )
    tolerations: Tolerations = Field(
        default=[],
        description="Taints of the nodes that have this hardware.",
        examples=[[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]],
    )


class AcceleratorClassStatus(Wire):
    """What of this hardware the cluster has."""

    nodes: int | None = Field(default=None, ge=0, description="Nodes that have it.", examples=[4])
    total: int | None = Field(
        default=None, ge=0, description="Replicas that they could hold in all.", examples=[32]
    )
    free: int | None = Field(
        default=None, ge=0, description="Replicas that they could hold now.", examples=[7]
    )
