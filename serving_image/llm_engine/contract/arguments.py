"""The engine's command lines, built by the operator and parsed by `llm-engine`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from llm_engine.contract.quantization import Quantization

DEFAULT_PORT: Final = 8000
BLOCK_TOKENS: Final = 16
"""Tokens in one block of the KV cache."""


class AttentionName(StrEnum):
    """What computes attention; `auto` is Triton's kernels on a GPU and torch on a CPU.

    With `invariant` a request's every bit is the same whatever else runs: attention and linears in
    tiles of fixed size, which is slow.
    """

    AUTO = "auto"
    TORCH = "torch"
    TRITON = "triton"
    XFORMERS = "xformers"
    INVARIANT = "invariant"


@dataclass(frozen=True)
class ServeArguments:
    """Arguments of `llm-engine serve`.

    max_context_tokens  longest prompt plus output of one request; None takes the model's own
    kv_cache_bytes      bytes for keys and values; None takes what memory allows
    drain_s             seconds that running requests get after SIGTERM
    tpot_target_s       time per output token that prefill must leave room for; None: no pacing
    simulate            path of a `LatencyProfile` to take the place of the model; None: compute
    tensor_parallel     processes that compute the model together
    prefix_caching      whether requests share what was computed of a common beginning
    """

    model: str
    served_name: str
    quantization: Quantization = Quantization.NONE
    port: int = DEFAULT_PORT
    host: str = "0.0.0.0"  # a replica listens on its pod's address
    device: str = "auto"
    attention: AttentionName = AttentionName.AUTO
    max_context_tokens: int | None = None
    kv_cache_bytes: int | None = None
    drain_s: float = 60.0
    tpot_target_s: float | None = None
    simulate: str | None = None
    prefix_caching: bool = True
    tensor_parallel: int = 1

    def command_line(self) -> list[str]:
        """Return the words after `llm-engine`; what is None is left to the engine."""
        words = ["serve", self.model]
        flags: dict[str, object] = {
            "--served-name": self.served_name,
            "--quantization": self.quantization.value,
            "--host": self.host,
            "--port": self.port,
            "--device": self.device,
            "--attention": self.attention.value,
            "--max-context-tokens": self.max_context_tokens,
            "--kv-cache-bytes": self.kv_cache_bytes,
            "--drain-seconds": self.drain_s,
            "--tpot-target-seconds": self.tpot_target_s,
            "--simulate": self.simulate,
            "--tensor-parallel": self.tensor_parallel if self.tensor_parallel > 1 else None,
        }
        for flag, value in flags.items():
            if value is not None:
                words += [flag, str(value)]
        if not self.prefix_caching:
            words.append("--no-prefix-caching")
        return words


def inspect_command_line(model: str, report_path: str) -> list[str]:
    """Return the words after `llm-engine` that write an `Inspection` to `report_path`."""
    return ["inspect", model, "--json", "--output", report_path]
