"""Decoding steps as captured CUDA graphs: one launch instead of a thousand.

A step of few rows takes a GPU less time than Python needs to name its kernels. So the kernels of a
step of 1, 2, 4 … rows are recorded when such a step first comes, and replayed from then on.
"""

import gc
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

from llm_engine.attention.backend import AttentionBackend
from llm_engine.attention.triton_fixed import FixedPlans
from llm_engine.attention.triton_paged import TritonAttention
from llm_engine.engine.step_inputs import StepInputs
from llm_engine.engine.warm_up import GRAPH_SIZES
from llm_engine.model.decoder import Decoder

Compute: TypeAlias = Callable[[], Tensor]
Capture: TypeAlias = Callable[[Compute], Compute]


def cuda_graphs() -> Capture:
    """Return what records kernels; graphs never run at the same time, so they share memory."""
    pool = torch.cuda.graph_pool_handle()

    def capture(compute: Compute) -> Compute:
        compute()  # compiles and chooses kernels, which cannot be recorded
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local")
        with _nothing_collected(), recording:
            out = compute()

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay

    return capture


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Keep the garbage collector away.

    A graph of an engine before this one, destroyed while another is recorded, would make that
    recording invalid.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class DecodeGraphs:
    """Graphs of a decoder's steps in which every request computes one token.

    most_blocks  of one request, in any layer group
    capture      records what a computation does, and returns what does it again
    """

    def __init__(
        self,
        decoder: Decoder,
        attention: TritonAttention,
        most_requests: int,
        most_blocks: int,
        capture: Capture,
    ) -> None:
        self._decoder = decoder
        self._attention = attention
        self._capture = capture
        self._sizes = [size for size in GRAPH_SIZES if size < most_requests] + [most_requests]
        self._plans = FixedPlans(attention, most_requests, most_blocks)
        self._replays: dict[int, Compute] = {}

    def fits(self, inputs: StepInputs) -> bool:
        """Tell whether a step computes one token of each request, and all are wanted."""
        count = inputs.batch.requests
        every_row = len(inputs.ids) == len(inputs.rows) == inputs.sampled_rows == count
        return every_row and count <= self._sizes[-1]

    def hidden(self, inputs: StepInputs) -> Tensor:
        """Compute a step that fits: the states [requests, hidden_size] of `Decoder.hidden`."""
        count = inputs.batch.requests
        size = self._sizes[bisect_left(self._sizes, count)]
        self._plans.fill(size, inputs.ids, inputs.batch)
        if size not in self._replays:
            self._replays[size] = self._capture(self._computing(size))
        return self._replays[size]()[:count]

    def _computing(self, size: int) -> Compute:
        step = self._plans.step(size)
        return lambda: self._decoder.hidden(
            step.words, step.positions, step.rows, self._attention, step.plan
        )


def make_graphs(
    decoder: Decoder, attention: AttentionBackend, most_requests: int, context_tokens: int
) -> DecodeGraphs | None:
    """Return graphs of this decoder's steps; None where its steps are not always the same kernels.

    context_tokens  of the longest text
    """
    if not isinstance(attention, TritonAttention) or decoder.settings.shape.experts is not None:
        return None  # which expert computes what is decided on the CPU
    most_blocks = context_tokens // attention.block_tokens + 1
    return DecodeGraphs(decoder, attention, most_requests, most_blocks, cuda_graphs())
