"""From the name of a model to a runner that has computed its first token."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from llm_engine.contract.arguments import BLOCK_TOKENS, AttentionName
from llm_engine.contract.memory_plan import LARGEST_STEPS, MemoryRequest, plan_memory
from llm_engine.contract.quantization import Quantization
from llm_engine.contract.shape import ModelShape
from llm_engine.contract.tensor_parallel import Rank, rank_shape
from llm_engine.engine.allocator import returned_when_freed
from llm_engine.engine.host import Host, read_host
from llm_engine.engine.loaded import Loaded
from llm_engine.engine.planning import refuse_if_too_large
from llm_engine.engine.warm_up import warm_up
from llm_engine.sampling.grammar import Grammars
from llm_engine.scheduling.plan import Limits
from llm_engine.tokenizer.tokenizer import Tokenizer, load_tokenizer
from llm_engine.weights.checkpoint import Checkpoint, open_checkpoint
from llm_engine.weights.source import resolve_source
from llm_engine.weights.stored_config import check_wanted

if TYPE_CHECKING:
    import torch

    from llm_engine.engine.parallel.leader import Followers
    from llm_engine.engine.part import PartTask
    from llm_engine.engine.runner import Runner


@dataclass(frozen=True)
class LoadOptions:
    """How to load; None leaves the choice to the engine.

    device  auto, cpu, cuda or cuda:N
    dtype   auto, float32 or bfloat16: what is computed in, and what the KV cache keeps
    tensor_parallel  processes that compute the model together, each on a GPU of its own or on CPUs
    """

    quantization: Quantization = Quantization.NONE
    device: str = "auto"
    dtype: str = "auto"
    attention: AttentionName = AttentionName.AUTO
    max_context_tokens: int | None = None
    kv_cache_bytes: int | None = None
    block_tokens: int = BLOCK_TOKENS
    tensor_parallel: int = 1


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
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device, host)
    on_phase("load")
    with returned_when_freed():
        task = _plan_part(checkpoint, options, device, dtype, host, context)
        torch.set_num_threads(task.threads)
        runner, other_ranks = _load_ranks(checkpoint, task)
    on_phase("warmup")
    runner.enter_thread()
    step = LARGEST_STEPS[device.type]
    warm_up(runner, device.type == "cuda", context, step.requests)
    shape = checkpoint.settings.shape
    return Loaded(
        shape=shape,
        tokenizer=tokenizer,
        runner=runner,
        limits=Limits(step_tokens=step.tokens, step_requests=step.requests),
        max_context_tokens=context,
        device=str(device),
        dtype=str(dtype).split(".")[-1],
        grammars=_grammars(tokenizer, shape),
        other_ranks=other_ranks,
    )


def _grammars(tokenizer: Tokenizer, shape: ModelShape) -> Grammars:
    # Either may know more: models pad their logits, and some tokenizers have words without a logit.
    vocabulary = max(shape.vocabulary, tokenizer.vocabulary)
    return Grammars(tokenizer.to_json(), vocabulary, tokenizer.eos_tokens)


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


def _plan_part(
    checkpoint: Checkpoint,
    options: LoadOptions,
    device: "torch.device",
    dtype: "torch.dtype",
    host: Host,
    context_tokens: int,
) -> "PartTask":
    """Return what this process shall load, or refuse the model before any memory is taken."""
    import torch

    from llm_engine.attention.choice import choose_attention
    from llm_engine.engine.part import PartTask

    ranks = options.tensor_parallel
    attention = choose_attention(options.attention, device)
    is_cuda = device.type == "cuda"
    if ranks > 1 and is_cuda and torch.cuda.device_count() < ranks:
        raise ValueError(f"tensor parallel {ranks}: {torch.cuda.device_count()} GPUs are here")
    plan = plan_memory(
        rank_shape(checkpoint.settings.shape, ranks),
        MemoryRequest(
            quantization=options.quantization,
            device=device.type,
            dtype_bytes=dtype.itemsize,
            context_tokens=context_tokens,
            # Ranks on CPUs share one memory.
            free_bytes=torch.cuda.mem_get_info(device)[0] if is_cuda else host.free_bytes // ranks,
            step=LARGEST_STEPS[device.type],
            kv_cache_bytes=options.kv_cache_bytes,
            block_tokens=options.block_tokens,
            gathers=attention in (AttentionName.TORCH, AttentionName.INVARIANT),
        ),
    )
    refuse_if_too_large(plan)
    return PartTask(
        path=checkpoint.path,
        quantization=options.quantization,
        attention=attention,
        device=device.type if ranks > 1 else str(device),
        dtype=str(dtype).split(".")[-1],
        context_tokens=context_tokens,
        blocks=plan.blocks,
        block_tokens=options.block_tokens,
        threads=max(1, host.threads // ranks),
        rank=Rank(0, ranks),
    )


def _load_ranks(checkpoint: Checkpoint, task: "PartTask") -> "tuple[Runner, Followers | None]":
    """Load the model: on this rank alone, or a part of it on each of several."""
    from llm_engine.engine.part import load_part

    if task.rank.count == 1:
        return load_part(checkpoint, task), None
    from llm_engine.engine.parallel.group import make_store, meet
    from llm_engine.engine.parallel.leader import Followers, LeadingRunner

    store = make_store(task.rank.count)
    followers = Followers(task, store.port)
    try:
        sum_ranks = meet(store, task.rank, task.torch_device)
        make_runner = partial(LeadingRunner, followers=followers)
        runner = load_part(checkpoint, task, sum_ranks, make_runner)
        followers.wait_until_loaded()
    except BaseException:
        followers.stop()
        raise
    return runner, followers
