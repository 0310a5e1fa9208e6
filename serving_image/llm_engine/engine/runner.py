"""Run one planned step on the device: tokens to tensors, tensors to tokens."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from llm_engine.attention.backend import AttentionBackend
from llm_engine.attention.cache import KVCache
from llm_engine.attention.staging import to_device
from llm_engine.engine.step_inputs import StepInputs, step_inputs
from llm_engine.model.decoder import Decoder
from llm_engine.sampling.choice import Choice, Score
from llm_engine.sampling.logprobs import token_logprobs
from llm_engine.sampling.sampled import StepResult, TokenLogprob
from llm_engine.sampling.sampler import sample
from llm_engine.scheduling.request import Request

if TYPE_CHECKING:
    from llm_engine.engine.decode_graphs import DecodeGraphs

SCORED_ROWS: Final = 64
"""Rows of a prompt whose logits are held at the same time: 40 MB for the largest vocabularies."""


class Runner:
    """A model with its KV cache. Used by one thread.

    graphs  compute the steps that fit them; None: every step is computed kernel by kernel
    """

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        attention: AttentionBackend,
        threads: int,
        graphs: "DecodeGraphs | None" = None,
    ) -> None:
        self._decoder = decoder
        self._cache = cache
        self._attention = attention
        self._threads = threads
        self._graphs = graphs

    @property
    def blocks(self) -> int:
        """Count the blocks of the cache."""
        return self._cache.blocks

    @property
    def block_tokens(self) -> int:
        """Return the tokens of one block."""
        return self._cache.block_tokens

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Return the window of each layer group; None: it sees everything."""
        return tuple(group.window_tokens for group in self._cache.groups)

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all weights."""
        return self._decoder.weight_bytes

    @property
    def cache_bytes(self) -> int:
        """Return the bytes of keys and values, written or not."""
        return self._cache.nbytes

    def enter_thread(self) -> None:
        """Set what torch keeps per thread."""
        torch.set_num_threads(self._threads)
        if self._decoder.device.type == "cuda":
            torch.cuda.set_device(self._decoder.device)  # where Triton's kernels run

    @torch.inference_mode()
    def run(
        self,
        tokens: Mapping[Request, int],
        choices: Sequence[Choice],
        scores: Sequence[Score] = (),
    ) -> StepResult:
        """Compute these many tokens of each request.

        choices  one for each request that catches up with its text in this step, in order
        scores   what else is wanted of the tokens computed
        """
        inputs = step_inputs(tokens, scores, self.windows, self.block_tokens)
        hidden = self.hidden(inputs)
        count = inputs.sampled_rows
        chosen = sample(self._decoder.project(hidden[:count]), choices) if count else []
        return StepResult(chosen, self._score(hidden[count:], scores) if scores else ())

    @torch.inference_mode()
    def hidden(self, inputs: StepInputs) -> Tensor:
        """Compute a step; return the states [rows, hidden_size] from which logits follow."""
        if self._graphs is not None and self._graphs.fits(inputs):
            return self._graphs.hidden(inputs)
        columns = (inputs.ids, inputs.batch.positions(), inputs.rows)
        arrays = [np.array(column, dtype=np.int32) for column in columns]
        words, positions, rows = to_device(arrays, self._decoder.device)
        plan = self._attention.plan(inputs.batch)
        return self._decoder.hidden(words, positions, rows, self._attention, plan)

    def _score(self, hidden: Tensor, scores: Sequence[Score]) -> list[list[TokenLogprob]]:
        """Return the log-probabilities wanted; a few rows at a time, since logits are large."""
        scored = []
        start = 0
        for score in scores:
            logprobs: list[TokenLogprob] = []
            for first in range(0, len(score.tokens), SCORED_ROWS):
                known = score.tokens[first : first + SCORED_ROWS]
                logits = self._decoder.project(hidden[start : start + len(known)])
                logprobs += token_logprobs(logits, known, [score.top] * len(known))
                start += len(known)
            scored.append(logprobs)
        return scored
