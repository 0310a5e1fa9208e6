"""How many KV blocks fit. Arithmetic only."""

from typing import Final

from llm_engine.contract.inspection import FailureReason, ModelRefused

FREE_SHARE: Final = 0.8
"""Share of the memory left beside the weights that keys and values may take; the rest is for
activations, the HTTP server and whatever the allocator wastes."""
_MIB: Final = 1 << 20


def count_blocks(
    *,
    block_bytes: int,
    block_tokens: int,
    blocks_per_request: int,
    context_tokens: int,
    step_requests: int,
    free_bytes: int,
    kv_cache_bytes: int | None,
) -> int:
    """Return the blocks to allocate, enough for at least one request of the longest context.

    blocks_per_request  most blocks of one request of the longest context, over all layer groups
    free_bytes      memory left once the weights are loaded
    kv_cache_bytes  what the user asked for; None takes a share of what is free
    """
    budget = int(free_bytes * FREE_SHARE) if kv_cache_bytes is None else kv_cache_bytes
    # More than all running requests can use would only be waste.
    blocks = min(budget // block_bytes, blocks_per_request * step_requests)
    if blocks < blocks_per_request:
        source = (
            f"{FREE_SHARE:.0%} of the {free_bytes // _MIB} MiB left beside the weights"
            if kv_cache_bytes is None
            else "the size asked for with --kv-cache-bytes"
        )
        # Exact where every layer sees everything, cautious where windows need less.
        fits = max(0, budget // block_bytes) * context_tokens // blocks_per_request
        fits = fits // block_tokens * block_tokens
        needed_mib = blocks_per_request * block_bytes // _MIB
        raise ModelRefused(
            FailureReason.OUT_OF_MEMORY,
            f"one request of {context_tokens} tokens needs {needed_mib} MiB "
            f"for keys and values, and {budget // _MIB} MiB are there ({source}); give the "
            f"container more memory or set maxContextTokens to at most {fits}",
        )
    if kv_cache_bytes is not None and kv_cache_bytes > free_bytes:
        raise ModelRefused(
            FailureReason.OUT_OF_MEMORY,
            f"--kv-cache-bytes asks for {kv_cache_bytes // _MIB} MiB, and "
            f"{free_bytes // _MIB} MiB are left beside the weights",
        )
    return blocks


def check_weights_fit(weight_bytes: int, free_bytes: int) -> None:
    """Refuse weights that would not fit, before any of them is loaded."""
    if weight_bytes > free_bytes:
        raise ModelRefused(
            FailureReason.OUT_OF_MEMORY,
            f"the weights need {weight_bytes // _MIB} MiB and {free_bytes // _MIB} MiB are free; "
            "give the container more memory or choose a smaller quantization",
        )
