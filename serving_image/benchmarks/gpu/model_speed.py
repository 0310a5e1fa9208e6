"""Whole steps of a model: tokens per second, and the share of what the card's memory allows."""

import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch

from benchmarks.gpu.offline import SERVED, serve
from benchmarks.gpu.random_model import random_decoder
from benchmarks.gpu.runners import GREEDY, make_requests, make_runner
from benchmarks.gpu.sections import Row, Setting
from benchmarks.gpu.timing import synchronize
from llm_engine.contract.arguments import AttentionName
from llm_engine.contract.quantization import Quantization
from llm_engine.engine.runner import Runner
from llm_engine.model.decoder import Decoder
from llm_engine.sampling.choice import Choice
from llm_engine.scheduling.request import Request


@dataclass(frozen=True)
class Decoding:
    """Requests that each compute one token, behind so long a text."""

    requests: int
    context_tokens: int
    quantization: Quantization = Quantization.NONE
    attention: AttentionName = AttentionName.AUTO
    graphs: bool = True


@dataclass(frozen=True)
class Prefill:
    """Prompts computed in steps of so many tokens."""

    requests: int
    prompt_tokens: int
    step_tokens: int


_NONE, _INT8, _INT4, _FP8 = Quantization
DECODING = {
    "0.6B": (
        Decoding(1, 1024), Decoding(1, 1024, graphs=False), Decoding(128, 1024),
        Decoding(256, 1024), Decoding(256, 1024, graphs=False),
        Decoding(256, 1024, attention=AttentionName.XFORMERS),
        Decoding(32, 1024, attention=AttentionName.TORCH),
    ),
    "8B": (
        Decoding(1, 1024), Decoding(128, 1056),
        Decoding(1, 1024, _INT8), Decoding(128, 1056, _INT8),
        Decoding(1, 1024, _INT4), Decoding(128, 1056, _INT4), Decoding(1, 1024, _FP8),
        Decoding(128, 1056, _FP8),
    ),
    "tiny": (Decoding(1, 40), Decoding(3, 40)),
}  # fmt: skip
PREFILL = {
    "0.6B": (Prefill(8, 1024, 2048), Prefill(8, 1024, 8192)),
    "8B": (Prefill(4, 4096, 2048), Prefill(4, 4096, 8192)),
    "tiny": (Prefill(2, 40, 32),),
}


def measure(setting: Setting, name: str) -> Iterator[Row]:
    """Yield decode, prefill and the whole engine for one model; bf16 first."""
    name = "tiny" if setting.quick else name
    device = torch.device(setting.device)
    longest = max(d.context_tokens for d in DECODING[name]) + 64
    longest = max([longest, *(p.prompt_tokens + 64 for p in PREFILL[name])])
    for quantization in Quantization:
        loads = [d for d in DECODING[name] if d.quantization is quantization]
        if not loads:
            continue
        began_s = time.perf_counter()
        decoder = random_decoder(name, quantization, device, max(longest, 2048 + 64))
        synchronize(setting.device)
        made_s = time.perf_counter() - began_s
        yield {"quantization": quantization.value, "weight_gb": decoder.weight_bytes / 1e9,
               "seconds_to_make": round(made_s, 2)}  # fmt: skip
        for load in loads:
            yield _decode(setting, decoder, load)
        if quantization is Quantization.NONE:
            for prefill in PREFILL[name]:
                yield _prefill(setting, decoder, prefill)
            for count, new_tokens in SERVED[name]:
                yield serve(setting, decoder, count, new_tokens)
            if setting.device != "cpu":
                for load in loads[:2]:
                    yield _profile(decoder, load)
        del decoder
        gc.collect()


def _choices(requests: Sequence[Request]) -> list[Choice]:
    return [
        Choice(GREEDY, request.tokens, request.prompt_tokens, Random(1), frozenset())
        for request in requests
    ]


def _decode(setting: Setting, decoder: Decoder, load: Decoding) -> Row:
    steps = 3 if setting.quick else 30
    runner, requests = _decoding(decoder, load, steps + 5)
    times = [_step(runner, requests) for _ in range(steps + 5)][5:]
    seconds = statistics.median(times)
    shape = decoder.settings.shape
    kv_bytes = load.requests * load.context_tokens * shape.kv_bytes_per_token(2)
    # Of the embedding only a few rows are read, unless it is the head too.
    outer = 0 if shape.tied_embeddings else decoder.embedding.nbytes
    moved = decoder.weight_bytes - outer + kv_bytes
    return {
        "decode": load.requests,
        "context_tokens": load.context_tokens,
        "quantization": load.quantization.value,
        "attention": load.attention.value,
        "graphs": load.graphs,
        "ms_per_token": seconds * 1e3,
        "tokens_per_s": load.requests / seconds,
        "bytes_of_copy_bandwidth": setting.share_of_copy(moved, seconds),
    }


def _decoding(decoder: Decoder, load: Decoding, steps: int) -> tuple[Runner, list[Request]]:
    vocabulary = decoder.settings.shape.vocabulary
    requests = make_requests(load.requests, load.context_tokens, steps + 1, vocabulary)
    for request in requests:
        request.computed_tokens = load.context_tokens - 1
    blocks = sum(len(request.tables[0].blocks) for request in requests)
    return make_runner(decoder, blocks, load.attention, load.graphs), requests


def _step(runner: Runner, requests: list[Request]) -> float:
    """Decode one token of each; return the wall's seconds from plan to tokens."""
    choices = _choices(requests)
    began_s = time.perf_counter()
    result = runner.run(dict.fromkeys(requests, 1), choices)
    seconds = time.perf_counter() - began_s
    for request, chosen in zip(requests, result.sampled, strict=True):
        request.tokens.append(chosen.token)
        request.computed_tokens += 1
    return seconds


def _prefill(setting: Setting, decoder: Decoder, load: Prefill) -> Row:
    shape = decoder.settings.shape
    times = []
    for _ in range(2):  # the first compiles
        requests = make_requests(load.requests, load.prompt_tokens, 1, shape.vocabulary)
        blocks = sum(len(request.tables[0].blocks) for request in requests)
        runner = make_runner(decoder, blocks, AttentionName.AUTO)
        synchronize(setting.device)
        began_s = time.perf_counter()
        while behind := [r for r in requests if r.tokens_behind]:
            room, tokens = load.step_tokens, {}
            for request in behind:
                tokens[request] = min(room, request.tokens_behind)
                room -= tokens[request]
                if not room:
                    break
            done = [r for r, count in tokens.items() if count == r.tokens_behind]
            runner.run(tokens, _choices(done))
            for request, count in tokens.items():
                request.computed_tokens += count
        synchronize(setting.device)
        times.append(time.perf_counter() - began_s)
    count = load.requests * load.prompt_tokens
    weights = shape.parameters - (0 if shape.tied_embeddings else 2) * shape.vocabulary * (
        shape.hidden_size
    )
    return {
        "prefill": load.requests,
        "prompt_tokens": load.prompt_tokens,
        "step_tokens": load.step_tokens,
        "tokens_per_s": count / times[-1],
        "of_bf16_matmul": setting.share_of_bf16(2 * weights * count, times[-1]),
    }


def _profile(decoder: Decoder, load: Decoding) -> Row:
    """Return where the device's time of one decoding step goes."""
    runner, requests = _decoding(decoder, load, 4)
    for _ in range(3):
        _step(runner, requests)
    activity = torch.profiler.ProfilerActivity
    try:
        with torch.profiler.profile(activities=[activity.CUDA, activity.CPU]) as profile:
            seconds = _step(runner, requests)
    except RuntimeError as error:  # a virtual machine may not let it
        return {"profile_of": load.requests, "does_not_run": str(error)[:80]}
    events: list[Any] = [e for e in profile.key_averages() if e.self_device_time_total > 0]
    events.sort(key=lambda e: -e.self_device_time_total)
    busy_s = sum(e.self_device_time_total for e in events) / 1e6
    return {
        "profile_of": load.requests,
        "step_ms": seconds * 1e3,
        "device_busy_ms": busy_s * 1e3,
        "kernels": {e.key[:60]: [e.count, round(e.self_device_time_total)] for e in events[:12]},
    }
