"""transformers' continuous batching on the same card, with the requests of model_speed."""

import time
import warnings
from collections.abc import Iterator
from random import Random
from typing import Any

import torch

from benchmarks.gpu.random_model import CONFIGS
from benchmarks.gpu.sections import Row, Setting, Skipped


def measure(setting: Setting) -> Iterator[Row]:
    """Yield tokens per second for several ways of attention, slowest requests first."""
    if setting.device == "cpu":
        raise Skipped("transformers' continuous batching is measured on a GPU only")
    model = _model("0.6B", setting.device)
    for count, attention in ((32, "sdpa"), (128, "sdpa")):
        try:
            yield _served(model, attention, count)
        except Exception as error:  # another version may lack it: that is a result too
            yield {"attention": attention, "requests": count, "does_not_run": repr(error)[:200]}


def _model(name: str, device: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import Qwen3Config, Qwen3ForCausalLM
    config = {key: value for key, value in CONFIGS[name].items() if key != "model_type"}
    torch.manual_seed(5)
    with torch.device(device):
        model = Qwen3ForCausalLM(Qwen3Config(**config, dtype="bfloat16"))
    return model.to(torch.bfloat16).eval()


def _served(model: Any, attention: str, count: int) -> Row:
    from transformers import GenerationConfig

    chance = Random(8)
    vocabulary = model.config.vocab_size
    prompts = [
        [chance.randrange(1, vocabulary) for _ in range(chance.randint(100, 1024))]
        for _ in range(count)
    ]
    new_tokens = 128  # its batch has one length for all; ours has 100 to 1,024
    config = GenerationConfig(
        max_new_tokens=new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    model.set_attn_implementation(attention)
    began_s = time.perf_counter()
    outputs = model.generate_batch(inputs=prompts, generation_config=config)
    seconds = time.perf_counter() - began_s
    tokens = sum(len(output.generated_tokens) for output in outputs.values())
    return {
        "attention": attention,
        "requests": count,
        "prompt_tokens": sum(map(len, prompts)),
        "output_tokens": tokens,
        "output_tokens_per_s": tokens / seconds,
        "seconds": seconds,
    }
