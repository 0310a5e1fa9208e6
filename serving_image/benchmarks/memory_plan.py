"""Compare the memory plan with what is measured: each quantization in a fresh process.

    python serving_image/benchmarks/memory_plan.py MODEL [--device cuda] [--output FILE]

A process asks for the plan, loads the model, writes every block of the KV cache, computes the
largest steps, and reads the peak: resident memory on a CPU; on a GPU what torch allocated there and
what the context took besides.
"""

import argparse
import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from llm_engine.contract.memory_plan import MemoryPlan
from llm_engine.contract.quantization import Quantization
from llm_engine.engine.baseline import read_baseline
from llm_engine.engine.planning import plan_for

if TYPE_CHECKING:
    from llm_engine.engine.runner import Runner
    from llm_engine.scheduling.request import Request

MIB: Final = 1 << 20
DEFAULT_KV_CACHE_BYTES: Final = 512 * MIB
TIMEOUT_S: Final = 540


@dataclass(frozen=True)
class Comparison:
    """One quantization: bytes as planned, and as measured.

    loading_peak_bytes  the most while the model was loaded, before any token
    final_bytes         the most while tokens were computed, everything included
    """

    quantization: str
    device: str
    planned: dict[str, int]
    weight_bytes: int
    kv_cache_bytes: int
    loading_peak_bytes: int
    final_bytes: int

    @property
    def ratio(self) -> float:
        """Return planned / measured."""
        return self.planned["total_bytes"] / self.final_bytes


def compare(
    model: str,
    quantization: Quantization,
    device: str,
    dtype: str,
    kv_cache_bytes: int,
    context_tokens: int,
) -> Comparison:
    """Plan, load, fill, step and measure; changes this process for good, so use a fresh one."""
    from llm_engine.weights.checkpoint import open_checkpoint

    baseline = read_baseline(device, dtype)
    shape = open_checkpoint(Path(model)).settings.shape
    plan = plan_for(shape, baseline, quantization, context_tokens, kv_cache_bytes)
    gauge = CudaGauge() if baseline.device == "cuda" else ResidentGauge()

    from llm_engine.engine.loading import LoadOptions, load

    options = LoadOptions(
        quantization=quantization,
        device=device,
        dtype=dtype,
        max_context_tokens=context_tokens,
        kv_cache_bytes=kv_cache_bytes,
    )
    loaded = load(model, options, lambda _phase: None)
    loading_peak = gauge.peak_bytes()
    gauge.restart()
    runner: Runner = loaded.runner  # type: ignore[assignment]  # never simulated here
    for slot in runner._cache.slots:
        slot.normal_()
    run_largest_steps(runner, plan)
    return Comparison(
        quantization=quantization.value,
        device=baseline.device,
        planned={
            name: value
            for name, value in plan.model_dump().items()
            if name.endswith("_bytes") and isinstance(value, int)
        },
        weight_bytes=runner.weight_bytes,
        kv_cache_bytes=runner.cache_bytes,
        loading_peak_bytes=loading_peak,
        final_bytes=gauge.peak_bytes(),
    )


def run_largest_steps(runner: "Runner", plan: MemoryPlan) -> None:
    """Compute what needs most: a decode of all requests over the whole cache, and a long chunk."""
    from llm_engine.contract.memory_plan import LARGEST_STEPS
    from llm_engine.sampling.choice import Choice
    from llm_engine.sampling.parameters import SamplingParameters

    step = LARGEST_STEPS[plan.device]
    sampling = SamplingParameters(max_tokens=1, temperature=1.0, top_logprobs=5)

    def choice(request: "Request") -> Choice:
        return Choice(sampling, request.tokens, request.prompt_tokens, Random(0), frozenset())

    share = runner.blocks // step.requests
    requests = [
        _request(runner, range(number * share, (number + 1) * share), behind=1)
        for number in range(step.requests)
    ]
    runner.run(dict.fromkeys(requests, 1), [choice(request) for request in requests])
    longest = range(min(runner.blocks, plan.request_blocks))
    chunk = _request(runner, longest, behind=min(step.tokens, len(longest) * runner.block_tokens))
    runner.run({chunk: chunk.tokens_behind}, [choice(chunk)])


def _request(runner: "Runner", blocks: range, behind: int) -> "Request":
    """Return a request that fills these blocks, all but its last tokens computed."""
    from llm_engine.scheduling.request import Request

    tokens = [1] * (len(blocks) * runner.block_tokens)
    request = Request(f"from {blocks.start}", tokens, runner.block_tokens, runner.windows)
    for table in request.tables:
        table.blocks = list(blocks)
    request.computed_tokens = len(tokens) - behind
    return request


class ResidentGauge:
    """Resident memory of this process, whose peak the kernel keeps."""

    def peak_bytes(self) -> int:
        """Return the most since the start or `restart`."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("this kernel keeps no peak of resident memory")

    def restart(self) -> None:
        """Forget the peak so far."""
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


class CudaGauge:
    """Memory of the GPU: what torch allocated, and the context, which torch does not count."""

    def __init__(self) -> None:
        import torch

        torch.ones(64, 64, device="cuda") @ torch.ones(64, 64, device="cuda")
        free, total = torch.cuda.mem_get_info()  # of a GPU that nobody else uses
        self._context_bytes = total - free - torch.cuda.memory_reserved()

    def peak_bytes(self) -> int:
        """Return the most since the start or `restart`."""
        import torch

        return self._context_bytes + torch.cuda.max_memory_allocated()

    def restart(self) -> None:
        """Forget the peak so far."""
        import torch

        torch.cuda.reset_peak_memory_stats()


def compare_in_a_process(arguments: argparse.Namespace, quantization: Quantization) -> Comparison:
    """Run `compare` where nothing has been loaded yet."""
    words = ["--child", quantization.value, "--device", arguments.device]
    words += ["--dtype", arguments.dtype]
    words += ["--kv-cache-bytes", str(arguments.kv_cache_bytes)]
    words += ["--max-context-tokens", str(arguments.max_context_tokens)]
    result = subprocess.run(
        [sys.executable, __file__, arguments.model, *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if result.returncode != 0:
        raise RuntimeError(f"{quantization}: {result.stderr}")
    return Comparison(**json.loads(result.stdout.splitlines()[-1]))


def report(comparisons: list[Comparison], write: Callable[[str], None]) -> None:
    """Write the table of figures, in MiB."""
    columns = "quantization, weights, KV cache, largest step, framework, planned, measured, ratio"
    names = [*columns.split(", "), "loading peak"]
    write(f"| {' | '.join(names)} |")
    write(f"|{' --- |' * len(names)}")
    for each in comparisons:
        planned = each.planned
        cells = [
            *(planned[name] for name in ("weight_bytes", "kv_cache_bytes", "step_bytes")),
            planned["framework_bytes"],
            planned["total_bytes"],
            each.final_bytes,
        ]
        figures = " | ".join(f"{amount / MIB:,.0f}" for amount in cells)
        peak = each.loading_peak_bytes / MIB
        write(f"| {each.quantization} | {figures} | {each.ratio:.3f} | {peak:,.0f} |")


def main() -> None:
    """Compare every quantization and print the table."""
    parser = argparse.ArgumentParser(description="Planned against measured memory.")
    parser.add_argument("model", help="a folder with safetensors, or a .gguf file")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--kv-cache-bytes", type=int, default=DEFAULT_KV_CACHE_BYTES)
    parser.add_argument("--max-context-tokens", type=int, default=4096)
    parser.add_argument("--only", type=Quantization, nargs="+", default=list(Quantization))
    parser.add_argument("--output", type=Path, help="write the figures as JSON here")
    parser.add_argument("--child", type=Quantization, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        comparison = compare(
            arguments.model,
            arguments.child,
            arguments.device,
            arguments.dtype,
            arguments.kv_cache_bytes,
            arguments.max_context_tokens,
        )
        print(json.dumps(asdict(comparison)))
        return
    comparisons = [compare_in_a_process(arguments, each) for each in arguments.only]
    report(comparisons, print)
    if arguments.output is not None:
        figures = [{**asdict(each), "ratio": each.ratio} for each in comparisons]
        arguments.output.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
