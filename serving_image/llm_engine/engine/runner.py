"""Run one planned step on the device: tokens to tensors, tensors to tokens."""

from collections.abc import Mapping, Sequence

import torch

from llm_engine.attention.backend import AttentionBackend
from llm_engine.attention.batch import GroupTables, StepBatch
from llm_engine.attention.cache import KVCache
from llm_engine.model.decoder import Decoder
from llm_engine.sampling.choice import Choice
from llm_engine.sampling.sampled import Sampled
from llm_engine.sampling.sampler import sample
from llm_engine.scheduling.request import Request


class Runner:
    """A model with its KV cache. Used by one thread."""

    def __init__(
        self, decoder: Decoder, cache: KVCache, attention: AttentionBackend, threads: int
    ) -> None:
        self._decoder = decoder
        self._cache = cache
        self._attention = attention
        self._threads = threads

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

    @torch.inference_mode()
    def run(self, tokens: Mapping[Request, int], choices: Sequence[Choice]) -> list[Sampled]:
        """Compute these many tokens of each request.

        choices  one for each request that catches up with its text in this step, in order;
                 returns the next token of each of these
        """
        starts = [0]
        ids: list[int] = []
        sampled: list[int] = []
        for request, count in tokens.items():
            ids += request.tokens[request.computed_tokens : request.computed_tokens + count]
            starts.append(len(ids))
            if count == request.tokens_behind:
                sampled.append(len(ids) - 1)
        batch = StepBatch(
            query_starts=tuple(starts),
            context_tokens=tuple(r.computed_tokens + count for r, count in tokens.items()),
            groups=tuple(
                GroupTables(
                    window_tokens=window,
                    released=tuple(request.tables[group].released for request in tokens),
                    blocks=tuple(request.tables[group].blocks for request in tokens),
                )
                for group, window in enumerate(self.windows)
            ),
            block_tokens=self._cache.block_tokens,
        )
        device = self._decoder.device
        logits = self._decoder.logits(
            torch.tensor(ids, device=device),
            torch.tensor(batch.positions(), device=device),
            torch.tensor(sampled, dtype=torch.int64, device=device),
            self._attention,
            self._attention.plan(batch),
        )
        return sample(logits, choices) if sampled else []
