"""From the command line's arguments to an engine that serves them."""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llm_engine.contract.arguments import ServeArguments
from llm_engine.server.lifecycle import Lifecycle
from llm_engine.server.threads import on_thread

if TYPE_CHECKING:
    from llm_engine.engine import Engine
    from llm_engine.server.backend import Backend
    from llm_engine.server.engine_process import EngineProcess
    from llm_engine.tokenizer.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

HTTP_NICENESS: Final = 5
"""A third of the CPU time that the engine gets, where both want it."""


async def start_engine(arguments: ServeArguments, lifecycle: Lifecycle) -> "Backend":
    """Return the engine that the arguments ask for; raises what goes wrong."""

    def enter(phase: str) -> None:
        if phase != lifecycle.phase:
            lifecycle.enter(phase)
            logger.info("%.1f s: %s", lifecycle.start_seconds(), phase)

    lifecycle.enter("import")
    if arguments.simulate is not None:
        return await on_thread(partial(simulate, arguments, enter))
    process = await launch()
    try:
        enter("resolve")
        source, tokenizer = await on_thread(partial(open_model, arguments.model))
        local = replace(arguments, model=str(source))
        await process.load(partial(make_engine, local), tokenizer, enter)
    except BaseException:
        process.kill()
        raise
    return process


async def launch() -> "EngineProcess":
    """Start the engine's process; what it needs is imported on a thread."""

    def find() -> "type[EngineProcess]":
        from llm_engine.server.engine_process import EngineProcess

        return EngineProcess

    process = await (await on_thread(find)).launch()
    # Where cores are short the step loop goes first: a late event only grows, a late step is lost.
    os.nice(HTTP_NICENESS)
    return process


def make_engine(arguments: ServeArguments, on_phase: Callable[[str], None]) -> "Engine":
    """Load the model; runs in the engine's process."""
    from llm_engine.engine import Engine

    return Engine.load(
        arguments.model,
        quantization=arguments.quantization,
        device=arguments.device,
        attention=arguments.attention,
        max_context_tokens=arguments.max_context_tokens,
        kv_cache_bytes=arguments.kv_cache_bytes,
        tpot_target_s=arguments.tpot_target_s,
        keeps_prefixes=arguments.prefix_caching,
        tensor_parallel=arguments.tensor_parallel,
        on_phase=on_phase,
    )


def simulate(arguments: ServeArguments, on_phase: Callable[[str], None]) -> "Engine":
    """Return an engine that only takes the time of one, on a thread of this process.

    It computes next to nothing, so a process of its own would cost memory and bring nothing.
    """
    from llm_engine.engine.simulation import read_profile, simulated_engine

    assert arguments.simulate is not None
    profile = read_profile(Path(arguments.simulate))
    if arguments.max_context_tokens is not None:
        profile = profile.with_context(arguments.max_context_tokens)
    return simulated_engine(
        profile, on_phase, arguments.tpot_target_s, keeps_prefixes=arguments.prefix_caching
    )


def open_model(model: str) -> "tuple[Path, Tokenizer]":
    """Fetch the model where it is not here yet, and read its tokenizer: ours, for HTTP."""
    from llm_engine.tokenizer.tokenizer import load_tokenizer
    from llm_engine.weights.checkpoint import open_checkpoint
    from llm_engine.weights.source import resolve_source

    path = resolve_source(model)
    return path, load_tokenizer(open_checkpoint(path))
