"""The AcceleratorClasses that the chart ships: facts about hardware, each row with its sources.

Peaks are dense. Memory is what a driver shows where that is known, else what the maker says.
Prices are on demand and per accelerator; they differ between clouds and change, so the chart's
value `acceleratorCatalogue.classes` lays others over them.
"""

from dataclasses import dataclass
from typing import Any, Final

from llm_operator.api.accelerator import AcceleratorClassSpec

NVIDIA: Final = "nvidia.com/gpu"
AMD: Final = "amd.com/gpu"
_PRODUCT: Final = "nvidia.com/gpu.product"  # set by NVIDIA's GPU feature discovery

_AWS: Final = (
    "AWS on demand, us-east-1, 2026-07-20, per GPU of {}: aws/karpenter-provider-aws@6fc13b5"
    " zz_generated.pricing_aws.go"
)
_RUNPOD: Final = "RunPod: deploybase.ai/articles/runpod-gpu-pricing, 2026-03"
_CAPABILITY: Final = "compute capability: NVIDIA's table of CUDA GPUs"


@dataclass(frozen=True)
class Row:
    """One class of the catalogue, as written in the custom resource; None is unknown."""

    name: str
    label: tuple[str, str] | None
    memory: str
    bandwidth: str | None
    peak: dict[str, str]
    interconnect: str | None
    compute_capability: int | None
    per_hour: str | None
    sources: tuple[str, ...]
    resource_name: str = NVIDIA


ROWS: Final = (
    Row(
        "nvidia-b200", (_PRODUCT, "NVIDIA-B200"), "192G", "8T",
        {"bf16": "2250T", "fp8": "4500T"}, "1800G", 100, "14.24",
        ("memory: 179 GiB, Vultr's documentation; bandwidth and peaks: glennklockwood.com B200,"
         " pytorch/ao torchao/testing/training/roofline_utils.py; int8 left out: not confirmed",
         _AWS.format("p6-b200"), _CAPABILITY),
    ),
    Row(
        "nvidia-h200", (_PRODUCT, "NVIDIA-H200"), "150.8G", "4.8T",
        {"bf16": "989T", "fp8": "1979T", "int8": "1979T"}, "900G", 90, "7.91",
        ("memory: 141 GB nominal, 150.8e9 bytes assumed; bandwidth: NVIDIA/TensorRT-LLM"
         " H200launch.md; peaks: aiwiki.ai/wiki/nvidia_h200, halved from sparse",
         _AWS.format("p5en"), _CAPABILITY),
    ),
    Row(
        "nvidia-h100-sxm", (_PRODUCT, "NVIDIA-H100-80GB-HBM3"), "85.5G", "3.35T",
        {"bf16": "989T", "fp8": "1979T", "int8": "1979T"}, "900G", 90, "6.88",
        ("memory: nvidia-smi; the rest: glennklockwood.com/garden/processors/h100",
         _AWS.format("p5"), _CAPABILITY),
    ),
    Row(
        "nvidia-h100-pcie", (_PRODUCT, "NVIDIA-H100-PCIe"), "80G", "2T",
        {"bf16": "756T", "fp8": "1513T", "int8": "1513T"}, "600G", 90, "1.99",
        ("archive-lib.hpctech.co.jp/gpuproduct/nvidia-h100.html, peaks halved from sparse;"
         " interconnect with a bridge",
         _RUNPOD, _CAPABILITY),
    ),
    Row(
        "nvidia-a100-80gb", (_PRODUCT, "NVIDIA-A100-SXM4-80GB"), "85.9G", "2039G",
        {"bf16": "312T", "int8": "624T"}, "600G", 80, "3.43",
        ("glennklockwood.com/garden/processors/A100", _AWS.format("p4de"), _CAPABILITY),
    ),
    Row(
        "nvidia-a100-40gb", (_PRODUCT, "NVIDIA-A100-SXM4-40GB"), "42.4G", "1555G",
        {"bf16": "312T", "int8": "624T"}, "600G", 80, "2.74",
        ("glennklockwood.com/garden/processors/A100; Paderborn Center for Parallel Computing wiki",
         _AWS.format("p4d"), _CAPABILITY),
    ),
    Row(
        "nvidia-l40s", (_PRODUCT, "NVIDIA-L40S"), "48.3G", "864G",
        {"bf16": "362T", "fp8": "733T", "int8": "733T"}, "64G", 89, "1.86",
        ("mullet.se, table with sparsity marked; interconnect: PCIe 4 x16",
         _AWS.format("g6e.xlarge"), _CAPABILITY),
    ),
    Row(
        "nvidia-l4", (_PRODUCT, "NVIDIA-L4"), "24.15G", "300G",
        {"bf16": "121T", "fp8": "242500G", "int8": "242500G"}, "64G", 89, "0.805",
        ("grokipedia.com L4 and L40S, peaks halved from sparse; interconnect: PCIe 4 x16",
         _AWS.format("g6.xlarge"), _CAPABILITY),
    ),
    Row(
        "nvidia-a10g", (_PRODUCT, "NVIDIA-A10G"), "24.1G", "600G",
        {}, "64G", 86, "1.006",
        ("memory and bandwidth: baseten.co/blog/nvidia-a10-vs-a10g-for-ml-model-inference;"
         " peaks left out: not confirmed; interconnect: PCIe 4 x16",
         _AWS.format("g5.xlarge"), _CAPABILITY),
    ),
    Row(
        "nvidia-t4", (_PRODUCT, "Tesla-T4"), "16G", "320G",
        {"bf16": "65T", "int8": "130T"}, "32G", 75, "0.526",
        ("NVIDIA T4 data sheet: 16 GB, 320 GB/s, 65 TFLOPS fp16 (it has no bf16), 130 TOPS int8,"
         " PCIe 3 x16",
         "AWS on demand, us-east-1, g4dn.xlarge", _CAPABILITY),
    ),
    Row(
        "nvidia-rtx-4090", (_PRODUCT, "NVIDIA-GeForce-RTX-4090"), "25.7G", "1008G",
        {"bf16": "165200G", "fp8": "330300G", "int8": "660600G"}, "64G", 89, "0.60",
        ("waredb.com; interconnect: PCIe 4 x16", f"{_RUNPOD}, upper end", _CAPABILITY),
    ),
    Row(
        "amd-mi300x", ("amd.com/gpu.device-id", "74a1"), "206G", "5.3T",
        {"bf16": "1307T", "fp8": "2614T", "int8": "2614T"}, "896G", None, "1.99",
        ("pytorch/ao torchao/testing/training/roofline_utils.py; label: AMD's node labeller",
         "median of on-demand offers, cliffcenter, 2026-05-18"),
        resource_name=AMD,
    ),
    Row(
        "cpu", None, "4Gi", None, {}, None, None, None,
        ("no accelerator: the replica computes on the node's CPU. 4 GiB unless"
         " spec.template.resources of the LLMDeployment says another memory; price unknown",),
        resource_name="cpu",
    ),
)  # fmt: skip


def catalogue() -> dict[str, dict[str, Any]]:
    """Return the spec of every shipped AcceleratorClass by its name, as on the wire."""
    return {row.name: _spec(row) for row in ROWS}


def _spec(row: Row) -> dict[str, Any]:
    spec: dict[str, Any] = {"resourceName": row.resource_name, "count": 1, "memory": row.memory}
    if row.bandwidth:
        spec["memoryBandwidth"] = row.bandwidth
    if row.peak:
        spec["peak"] = row.peak
    if row.interconnect:
        spec["interconnect"] = row.interconnect
    if row.compute_capability:
        spec["computeCapability"] = row.compute_capability
    if row.per_hour:
        spec["price"] = {"perHour": row.per_hour, "currency": "USD"}
    if row.label:
        spec["nodeSelector"] = dict([row.label])
        spec["tolerations"] = [
            {"key": row.resource_name, "operator": "Exists", "effect": "NoSchedule"}
        ]
    AcceleratorClassSpec.model_validate(spec)
    return spec
