"""A random llama of a few hundred kilobytes, and engines that run it in tight conditions."""

import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.tiny_models import SHAPE, byte_tokenizer
from llm_engine.contract.arguments import AttentionName
from llm_engine.contract.layer_groups import block_bytes
from llm_engine.contract.quantization import Quantization
from llm_engine.engine import Engine, GenerationRequest, SamplingParameters, TokenEvent
from llm_engine.engine.loading import LoadOptions, load
from llm_engine.scheduling.plan import Limits
from llm_engine.weights.checkpoint import open_checkpoint

BLOCK_TOKENS = 8


def reference_model(**changes: Any) -> Any:
    """Return transformers' own llama with fixed random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, **changes})).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.normal_(1.0, 0.2)
    return model


def save_tiny_llama(folder: Path, **changes: Any) -> Any:
    """Save the model as transformers does, with a tokenizer of single bytes; return it."""
    model = reference_model(**changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return model


def an_engine(
    folder: Path,
    *,
    blocks: int | None = None,
    step_tokens: int = 64,
    step_requests: int = 16,
    dtype: str = "float32",
    quantization: Quantization = Quantization.NONE,
    keeps_prefixes: bool = True,
    attention: AttentionName = AttentionName.AUTO,
) -> Engine:
    """Return an engine that is not started; `blocks` is the size of its whole KV cache."""
    shape = open_checkpoint(folder).settings.shape
    block = block_bytes(shape, BLOCK_TOKENS, 2 if dtype == "bfloat16" else 4)
    options = LoadOptions(
        quantization=quantization,
        device="cpu",
        dtype=dtype,
        attention=attention,
        kv_cache_bytes=None if blocks is None else blocks * block,
        block_tokens=BLOCK_TOKENS,
    )
    loaded = load(str(folder), options, lambda _phase: None)
    # Nothing in reserve, so that a small cache does lead to preemption.
    limits = Limits(step_tokens=step_tokens, step_requests=step_requests, reserve_tokens=0)
    return Engine(replace(loaded, limits=limits), keeps_prefixes=keeps_prefixes)


class Answers:
    """Collects the events of several requests until all of them have ended."""

    def __init__(self) -> None:
        self.tokens: dict[str, list[int]] = {}
        self.last: dict[str, TokenEvent] = {}
        self._changed = threading.Condition()

    def take(self, event: TokenEvent) -> None:
        with self._changed:
            self.tokens.setdefault(event.request_id, []).extend(event.token_ids)
            if event.finish_reason is not None:
                assert event.request_id not in self.last, "two last events"
                self.last[event.request_id] = event
            self._changed.notify_all()

    def wait_for_ends(self, count: int, timeout_s: float = 60.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.last) >= count, timeout_s), self.tokens

    def wait_for_token(self, name: str, timeout_s: float = 60.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: bool(self.tokens.get(name)), timeout_s)


def answer(
    engine: Engine, prompts: Sequence[Sequence[int]], sampling: SamplingParameters
) -> list[list[int]]:
    """Submit all prompts at once and return their tokens; the engine must be running."""
    answers = Answers()
    for number, prompt in enumerate(prompts):
        request = GenerationRequest(str(number), tuple(prompt), sampling)
        engine.submit(request, answers.take)
    answers.wait_for_ends(len(prompts))
    reasons = {event.finish_reason for event in answers.last.values()}
    assert reasons <= {"stop", "length"}, answers.last
    return [answers.tokens[str(number)] for number in range(len(prompts))]


def greedy(max_tokens: int) -> SamplingParameters:
    return SamplingParameters(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)


def prompts_of(*lengths: int) -> list[list[int]]:
    """Return fixed random prompts of these lengths."""
    generator = torch.Generator().manual_seed(11)
    return [torch.randint(0, 256, (n,), generator=generator).tolist() for n in lengths]
