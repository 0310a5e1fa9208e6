"""Which backend computes attention, and what it says where it cannot."""

from pathlib import Path

import pytest
import torch

from llm_engine.attention.choice import choose_attention
from llm_engine.contract.arguments import AttentionName
from llm_engine.engine import Engine
from llm_engine.engine.loading import LoadOptions, load
from tests.engine.tiny_llama import an_engine, answer, greedy, prompts_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "expected"), [(CPU, AttentionName.TORCH), (CUDA, AttentionName.TRITON)]
)
def test_auto_is_triton_on_a_gpu_and_torch_on_a_cpu(
    device: torch.device, expected: AttentionName
) -> None:
    assert choose_attention(AttentionName.AUTO, device) is expected


def test_a_backend_that_cannot_run_here_is_refused_with_the_reason() -> None:
    with pytest.raises(
        ValueError, match=r"xformers is not possible on cpu: .* needs an NVIDIA GPU"
    ):
        choose_attention(AttentionName.XFORMERS, CPU)


def test_triton_on_a_cpu_is_refused_unless_it_interprets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_attention(AttentionName.TRITON, CPU) is AttentionName.TRITON
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="triton is not possible on cpu"):
        choose_attention(AttentionName.TRITON, CPU)


def test_an_engine_says_the_same_whatever_computes_its_attention(tiny_llama: Path) -> None:
    prompts, sampling = prompts_of(5, 19), greedy(4)
    options = LoadOptions(device="cpu", dtype="float32", attention=AttentionName.TRITON)
    answers = []
    for engine in (an_engine(tiny_llama), Engine(load(str(tiny_llama), options, lambda _: None))):
        engine.start()
        answers.append(answer(engine, prompts, sampling))
        engine.stop()
    assert answers[0] == answers[1]
