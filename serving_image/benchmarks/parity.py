"""Greedy tokens against transformers': every family, whatever the engine does to a request.

    python serving_image/benchmarks/parity.py [--device cuda] [--families llama,gemma2]

A token is right if it is the likeliest of transformers' model of the same dtype after the engine's
own tokens before it: right throughout means equal texts, and a cell counts those. In bf16
transformers itself differs from its fp32 model by some error; likeliest tokens nearer to each other
than twice the largest such error are a tie, and either will do.
"""

import argparse
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

from benchmarks.tiny_models import CONTEXT_TOKENS, FAMILIES, decide_routes, family_model, save_model
from llm_engine.contract.arguments import AttentionName
from llm_engine.contract.layer_groups import block_bytes, blocks_per_request
from llm_engine.engine import Engine, EngineStats, GenerationRequest, SamplingParameters
from llm_engine.engine.loading import LoadOptions, load
from llm_engine.scheduling.plan import Limits
from llm_engine.weights.checkpoint import open_checkpoint

BLOCK_TOKENS: Final = 4
NEW_TOKENS: Final = 12
PROMPT_TOKENS: Final = (70, 3, 41, 6, 17, 9, 5, 12)
CANDIDATES: Final = 32
RIVALS: Final = 8
"""Likeliest tokens whose error counts: nobody confuses one of the others with the likeliest."""
DTYPES: Final = ("float32", "bfloat16")


@dataclass(frozen=True)
class Condition:
    """What happens to a request on its way.

    step_tokens  most tokens of one step: fewer than a prompt has means chunks
    is_tight     the KV cache holds one request of the longest context, and no more
    repeats      every prompt comes twice; the second answer counts
    happened     what the engine's figures must show for the condition to have been met
    """

    step_tokens: int
    is_tight: bool = False
    repeats: bool = False
    happened: Callable[[EngineStats], bool] = lambda _stats: True


CONDITIONS: Final[Mapping[str, Condition]] = {
    "one prefill": Condition(CONTEXT_TOKENS * len(PROMPT_TOKENS)),
    "chunked": Condition(17),
    "preempted": Condition(17, is_tight=True, happened=lambda stats: stats.preemptions > 0),
    "prefix hit": Condition(17, repeats=True, happened=lambda stats: stats.prefix_found_tokens > 0),
}


@dataclass(frozen=True)
class Reference:
    """transformers' model of one family, saved in `folder`.

    rounded  the same in bf16
    prompts  after which the likeliest tokens are far from being equally likely
    """

    folder: Path
    exact: Any
    rounded: Any
    prompts: tuple[list[int], ...]


@dataclass(frozen=True)
class Verdict:
    """How many tokens are right; `ties` of them only within the rounding of bf16.

    equal_texts    texts of which every token is the likeliest
    decided_texts  texts without a single tie: those must be equal
    happened       whether what the condition says did happen
    """

    tokens: int
    right: int
    ties: int
    texts: int
    equal_texts: int
    decided_texts: int
    happened: bool

    @property
    def passed(self) -> bool:
        """Tell whether every token is right and the condition was met."""
        return self.happened and self.right == self.tokens


def make_reference(family: str, folder: Path) -> Reference:
    """Save a family's tiny model, and load it in both dtypes."""
    model = family_model(family)
    decide_routes(model)
    save_model(model, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM
    exact, rounded = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        for dtype in DTYPES
    )
    return Reference(folder, exact, rounded, _clear_prompts(exact))


def judge(
    reference: Reference,
    dtype: str,
    condition: Condition,
    device: str = "cpu",
    attention: AttentionName = AttentionName.AUTO,
) -> Verdict:
    """Run the engine under a condition and compare its tokens with the reference's."""
    prompts = reference.prompts
    engine = _engine(reference.folder, dtype, condition, device, attention)
    engine.start()
    try:
        if condition.repeats:
            answer(engine, prompts, NEW_TOKENS)
        answers = answer(engine, prompts, NEW_TOKENS)
        happened = condition.happened(engine.stats())
    finally:
        engine.stop()
    pairs = zip(prompts, answers, strict=True)
    marks = [_marks(reference, dtype, prompt, tokens) for prompt, tokens in pairs]
    return Verdict(
        tokens=sum(len(likeliest) for likeliest, _ in marks),
        right=sum(int((likeliest | tied).sum()) for likeliest, tied in marks),
        ties=sum(int(tied.sum()) for _, tied in marks),
        texts=len(prompts),
        equal_texts=sum(bool(likeliest.all()) for likeliest, _ in marks),
        decided_texts=sum(not tied.any() for _, tied in marks),
        happened=happened,
    )


def answer(
    engine: Engine, prompts: Sequence[Sequence[int]], new_tokens: int, timeout_s: float = 60.0
) -> list[list[int]]:
    """Continue all prompts at once, greedily; raises RuntimeError where one fails."""
    answers: list[list[int]] = [[] for _ in prompts]
    ended = threading.Semaphore(0)
    sampling = SamplingParameters(max_tokens=new_tokens, temperature=0.0, ignore_eos=True)

    def take(number: int, tokens: Sequence[int], is_last: bool) -> None:
        answers[number].extend(tokens)
        if is_last:
            ended.release()

    for number, prompt in enumerate(prompts):
        engine.submit(
            GenerationRequest(str(number), tuple(prompt), sampling),
            lambda event, number=number: take(  # type: ignore[misc]  # bound by its default
                number, event.token_ids, event.finish_reason is not None
            ),
        )
    for _ in prompts:
        if not ended.acquire(timeout=timeout_s):
            raise RuntimeError(f"no answer within {timeout_s} s")
    if any(len(tokens) != new_tokens for tokens in answers):
        raise RuntimeError(f"expected {new_tokens} tokens each, got {answers}")
    return answers


@torch.inference_mode()
def _clear_prompts(model: Any) -> tuple[list[int], ...]:
    """Return, for each length, the random prompt whose next tokens have the widest leads.

    A text that repeats a token is no good one: it tells nothing of what came before.
    """
    generator = torch.Generator().manual_seed(11)
    chosen = []
    for length in PROMPT_TOKENS:
        prompts = torch.randint(0, 256, (CANDIDATES, length), generator=generator)
        step, past, lead = prompts, None, torch.full((CANDIDATES,), torch.inf)
        for _ in range(NEW_TOKENS):
            result = model(step, past_key_values=past, use_cache=True, logits_to_keep=1)
            past, top = result.past_key_values, result.logits[:, -1].topk(2)
            lead = torch.minimum(lead, top.values[:, 0] - top.values[:, 1])
            lead[top.indices[:, 0] == step[:, -1]] = 0
            step = top.indices[:, :1]
        chosen.append(prompts[lead.argmax()].tolist())
    return tuple(chosen)


def _engine(
    folder: Path, dtype: str, condition: Condition, device: str, attention: AttentionName
) -> Engine:
    shape = open_checkpoint(folder).settings.shape
    itemsize = getattr(torch, dtype).itemsize
    # What the engine itself demands: room for one request under its own limits.
    blocks = blocks_per_request(shape, CONTEXT_TOKENS, CONTEXT_TOKENS, BLOCK_TOKENS)
    options = LoadOptions(
        device=device,
        dtype=dtype,
        attention=attention,
        block_tokens=BLOCK_TOKENS,
        kv_cache_bytes=blocks * block_bytes(shape, BLOCK_TOKENS, itemsize)
        if condition.is_tight
        else None,
    )
    loaded = load(str(folder), options, lambda _phase: None)
    limits = Limits(condition.step_tokens, step_requests=8, reserve_tokens=0)
    return Engine(replace(loaded, limits=limits), keeps_prefixes=condition.repeats)


def _marks(
    reference: Reference, dtype: str, prompt: Sequence[int], tokens: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each token whether it is the likeliest, and whether it is a tie instead."""
    model = reference.exact if dtype == "float32" else reference.rounded
    text = torch.tensor([[*prompt, *tokens]])
    with torch.inference_mode():
        logits = model(text).logits[0].float()
        errors = (logits - reference.exact(text).logits[0]).abs()
    rows = slice(len(prompt) - 1, -1)
    top = logits[rows].topk(RIVALS)
    error = errors[rows].gather(1, top.indices).max()
    best, second = top.values[:, 0], top.values[:, 1]
    chosen = logits[rows].gather(1, torch.tensor(tokens)[:, None])[:, 0]
    tied = (best - second <= 2 * error) & (chosen >= best - 2 * error) & (error > 0)
    return chosen == best, tied


def main(arguments: Sequence[str]) -> int:
    """Print the matrix; return 1 where a token is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu", help="cpu (the default) or cuda")
    parser.add_argument("--families", default=",".join(FAMILIES), help="some of the families")
    options = parser.parse_args(arguments)
    print(f"| family | dtype | {' | '.join(CONDITIONS)} |")
    print("| --- | --- |" + " --- |" * len(CONDITIONS))
    all_passed = True
    for family in options.families.split(","):
        with TemporaryDirectory() as folder:
            reference = make_reference(family, Path(folder))
            for dtype in DTYPES:
                verdicts = [
                    judge(reference, dtype, condition, options.device)
                    for condition in CONDITIONS.values()
                ]
                all_passed &= all(verdict.passed for verdict in verdicts)
                cells = " | ".join(_cell(verdict) for verdict in verdicts)
                print(f"| {family} | {dtype} | {cells} |", flush=True)
    return 0 if all_passed else 1


def _cell(verdict: Verdict) -> str:
    ties = f", {verdict.ties} ties" if verdict.ties else ""
    wrong = f", {verdict.tokens - verdict.right} wrong" if verdict.right < verdict.tokens else ""
    words = "" if verdict.happened else ", did not happen"
    return f"{verdict.equal_texts}/{verdict.texts}{ties}{wrong}{words}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))
