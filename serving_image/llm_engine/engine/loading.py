"""From the name of a model to a runner that has computed its first token."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_engine.contract.arguments import BLOCK_TOKENS, AttentionName
from llm_engine.contract.memory_plan import LARGEST_STEPS, MemoryPlan, MemoryRequest, plan_memory
from llm_engine.contract.quantization import Quantization
from llm_engine.contract.shape import ModelShape
from llm_engine.engine.allocator import returned_when_freed
from llm_engine.engine.host import Host, read_host
from llm_engine.engine.loaded import Loaded
from llm_engine.engine.planning import refuse_if_too_large
from llm_engine.engine.warm_up import warm_up
from llm_engine.sampling.grammar import Grammars
from llm_engine.scheduling.plan import Limits
from llm_engine.tokenizer.tokenizer import load_tokenizer
from llm_engine.weights.checkpoint import Checkpoint, open_checkpoint
from llm_engine.weights.source import resolve_source
from llm_engine.weights.stored_config import check_wanted

if TYPE_CHECKING:
    import torch

    from llm_engine.engine.runner import Runner


@dataclass(frozen=True)
class LoadOptions:
    """How to load; None leaves the choice to the engine.

    device  auto, cpu, cuda or cuda:N
    dtype   auto, float32 or bfloat16: what is computed in, and what the KV cache keeps
    """

    quantization: Quantization = Quantization.NONE
    device: str = "auto"
    dtype: str = "auto"
    attention: AttentionName = AttentionName.AUTO
    max_context_tokens: int | None = None
    kv_cache_bytes: int | None = None
    block_tokens: int = BLOCK_TOKENS


def load(model: str, options: LoadOptions, on_phase: Callable[[str], None]) -> Loaded:
    """Load a model. Everything that can be refused is refused before memory is taken.

    on_phase  told the phase that begins: resolve, import, load, warmup
    """
    on_phase("resolve")
    checkpoint = open_checkpoint(resolve_source(model))
    context = choose_context(checkpoint, options.max_context_tokens)
    tokenizer = load_tokenizer(checkpoint)
    check_wanted(checkpoint.settings.stored, options.quantization)
    on_phase("import")
    # Threads that wait for work must sleep: spinning ones take the CPU from those that have some,
    # and a step then takes 40 times as long on a machine that is shared. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # noqa: TID251
    import torch

    host = read_host()
    torch.set_num_threads(host.threads)
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device, host)
    on_phase("load")
    with returned_when_freed():
        runner, limits = _load_runner(checkpoint, options, device, dtype, host, context)
    on_phase("warmup")
    runner.enter_thread()
    warm_up(runner, device.type == "cuda", context, limits.step_requests)
    shape = checkpoint.settings.shape
    return Loaded(
        shape=shape,
        tokenizer=tokenizer,
        runner=runner,
        limits=limits,
        max_context_tokens=context,
        device=str(device),
        dtype=str(dtype).split(".")[-1],
        grammars=Grammars(tokenizer.to_json(), shape.vocabulary, tokenizer.eos_tokens),
    )


def choose_context(checkpoint: Checkpoint, wanted: int | None) -> int:
    """Return the longest prompt plus output to serve."""
    own = checkpoint.settings.shape.context_tokens
    if wanted is None:
        return own
    if not 2 <= wanted <= own:
        raise ValueError(f"max_context_tokens is {wanted}; the model allows 2 to {own}")
    return wanted


def choose_device(name: str) -> "torch.device":
    """Pick the GPU where there is one, unless told otherwise."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, and torch sees no CUDA device")
    return device


def choose_dtype(name: str, device: "torch.device", host: Host) -> "torch.dtype":
    """Pick bf16 where the hardware multiplies it, fp32 elsewhere: emulated bf16 is 8x slower."""
    import torch

    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" or host.native_bf16 else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def _load_runner(
    checkpoint: Checkpoint,
    options: LoadOptions,
    device: "torch.device",
    dtype: "torch.dtype",
    host: Host,
    context_tokens: int,
) -> "tuple[Runner, Limits]":
    from llm_engine.attention.cache import KVCache
    from llm_engine.attention.choice import choose_attention, make_attention
    from llm_engine.engine.runner import Runner
    from llm_engine.model.assembly import load_decoder

    attention = choose_attention(options.attention, device)
    shape = checkpoint.settings.shape
    gathers = attention in (AttentionName.TORCH, AttentionName.INVARIANT)
    plan = _checked_plan(shape, options, device, dtype, host, context_tokens, gathers)
    is_invariant = attention is AttentionName.INVARIANT
    decoder = load_decoder(
        checkpoint, options.quantization, dtype, device, context_tokens, is_invariant
    )
    cache = KVCache.allocate(shape, plan.blocks, options.block_tokens, dtype, device)
    backend = make_attention(attention, cache, decoder.attention)
    step = LARGEST_STEPS[device.type]
    limits = Limits(step_tokens=step.tokens, step_requests=step.requests)
    graphs = None
    if attention is AttentionName.TRITON and device.type == "cuda":
        from llm_engine.engine.decode_graphs import make_graphs

        graphs = make_graphs(decoder, backend, step.requests, context_tokens)
    return Runner(decoder, cache, backend, host.threads, graphs), limits


def _checked_plan(
    shape: ModelShape,
    options: LoadOptions,
    device: "torch.device",
    dtype: "torch.dtype",
    host: Host,
    context_tokens: int,
    gathers: bool,
) -> MemoryPlan:
    """Return where the bytes will go, or refuse the model before any of them is taken."""
    import torch

    is_cuda = device.type == "cuda"
    plan = plan_memory(
        shape,
        MemoryRequest(
            quantization=options.quantization,
            device=device.type,
            dtype_bytes=dtype.itemsize,
            context_tokens=context_tokens,
            free_bytes=torch.cuda.mem_get_info(device)[0] if is_cuda else host.free_bytes,
            step=LARGEST_STEPS[device.type],
            kv_cache_bytes=options.kv_cache_bytes,
            block_tokens=options.block_tokens,
            gathers=gathers,
        ),
    )
    refuse_if_too_large(plan)
    return plan
