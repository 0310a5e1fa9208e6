"""Several ranks give the tokens of one, hold exactly its weights, and end together."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch

from benchmarks.parity import answer
from benchmarks.tiny_models import FAMILIES, family_model, save_model
from llm_engine.attention.choice import choose_attention
from llm_engine.contract.arguments import AttentionName
from llm_engine.contract.quantization import Quantization
from llm_engine.contract.shape import ModelShape
from llm_engine.contract.tensor_parallel import (
    Rank,
    gate_up_rows,
    query_key_value_rows,
    rank_shape,
)
from llm_engine.engine import Engine, GenerationRequest, SamplingParameters
from llm_engine.engine.loaded import Loaded
from llm_engine.engine.loading import LoadOptions, load
from llm_engine.engine.parallel.leader import LeadingRunner
from llm_engine.engine.part import PartTask, load_part
from llm_engine.engine.step_inputs import StepInputs
from llm_engine.model.assembly import load_decoder
from llm_engine.model.rank_part import RankPart
from llm_engine.quantization.linear import quantized
from llm_engine.quantization.weight import decoded, take_columns, take_rows
from llm_engine.scheduling.plan import Limits
from llm_engine.weights.checkpoint import open_checkpoint
from tests.engine.test_parity_tiny import running
from tests.engine.test_stored_checkpoints import save_stored
from tests.engine.tiny_llama import BLOCK_TOKENS, an_engine, prompts_of

PROMPTS = prompts_of(5, 40, 17, 70)
NEW_TOKENS = 16


def a_shape(**changes: Any) -> ModelShape:
    fields = {
        "architecture": "llama", "layers": 2, "hidden_size": 48, "intermediate_size": 96,
        "query_heads": 12, "kv_heads": 4, "head_dim": 8, "vocabulary": 260, "context_tokens": 128,
        "tied_embeddings": True,
    }  # fmt: skip
    return ModelShape(**{**fields, **changes})


@pytest.mark.parametrize("ranks", [1, 2, 4, 12])
def test_every_row_is_held_and_only_heads_of_keys_are_held_twice(ranks: int) -> None:
    shape = a_shape()
    own = rank_shape(shape, ranks)
    held: list[int] = []
    for index in range(ranks):
        rows = query_key_value_rows(shape, Rank(index, ranks))
        assert [len(part) for part in rows] == [
            heads * shape.head_dim for heads in (own.query_heads, own.kv_heads, own.kv_heads)
        ]
        held += [row for part in rows for row in part]
    assert set(held) == set(range((12 + 4 + 4) * 8))
    queries = [row for row in held if row < 12 * 8]
    assert sorted(queries) == list(range(12 * 8))
    halves = [
        row for i in range(ranks) for part in gate_up_rows(96, Rank(i, ranks)) for row in part
    ]
    assert sorted(halves) == list(range(2 * 96))


@pytest.mark.parametrize(
    ("changes", "ranks", "words"),
    [
        pytest.param({}, 5, "query_heads is 12; it must be a multiple of 5", id="heads"),
        pytest.param({"intermediate_size": 97}, 2, "intermediate_size is 97", id="an MLP's width"),
        pytest.param({"kv_heads": 3}, 2, "kv_heads is 3", id="heads of keys"),
        pytest.param({"experts": 4, "experts_per_token": 2, "expert_size": 7}, 2,
                     "expert_size is 7", id="experts"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused(changes: dict[str, Any], ranks: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rank_shape(a_shape(**changes), ranks)


@pytest.mark.parametrize("quantization", list(Quantization))
def test_a_part_of_a_quantized_weight_is_exactly_that_part(quantization: Quantization) -> None:
    weight = quantized(torch.randn(96, 256), quantization)
    whole = decoded(weight)
    rows = torch.tensor([*range(8, 24), *range(64, 80)])
    assert torch.equal(decoded(take_rows(weight, rows)), whole[rows])
    assert torch.equal(decoded(take_columns(weight, range(128, 256))), whole[:, 128:])


def test_a_group_that_shares_a_scale_is_not_cut() -> None:
    weight = quantized(torch.randn(8, 96), Quantization.INT4)
    with pytest.raises(ValueError, match="in groups of 32"):
        take_columns(weight, range(0, 48))


@pytest.mark.parametrize("name", ["AWQ", "compressed-tensors int8", "fp8, one scale"])
def test_parts_of_a_quantized_checkpoint_are_exactly_those_of_the_whole(
    tmp_path: Path, name: str
) -> None:
    save_stored(tmp_path, name)
    checkpoint = open_checkpoint(tmp_path)

    def layer(rank: Rank) -> Any:
        # Nothing to add up with, so that each rank's own output is seen.
        cpu, part = torch.device("cpu"), RankPart(rank)
        decoder = load_decoder(checkpoint, Quantization.NONE, torch.float32, cpu, 64, part=part)
        return decoder.layers[0]

    shape = checkpoint.settings.shape
    hidden, inner = torch.eye(shape.hidden_size), torch.eye(shape.intermediate_size)
    whole = layer(Rank())
    for rank in (Rank(0, 2), Rank(1, 2)):
        own, columns = layer(rank), rank.part(shape.intermediate_size)
        rows = [row for part in query_key_value_rows(shape, rank) for row in part]
        assert torch.equal(own.query_key_value(hidden), whole.query_key_value(hidden)[:, rows])
        seen = own.mlp.down(torch.eye(len(columns)))
        assert torch.equal(seen, whole.mlp.down(inner)[columns.start : columns.stop])


class Threads:
    """Ranks as threads of this process: they add up at a barrier."""

    def __init__(self, ranks: int) -> None:
        self._parts: list[Any] = [None] * ranks
        self._barrier = threading.Barrier(ranks)
        self._steps: list[SimpleQueue[StepInputs | None]] = []

    def sum_ranks(self, index: int, part: torch.Tensor) -> torch.Tensor:
        self._parts[index] = part
        self._barrier.wait(60)
        total: torch.Tensor = sum(self._parts)
        self._barrier.wait(60)
        return total

    def follow(self, runner: Any) -> None:
        steps: SimpleQueue[StepInputs | None] = SimpleQueue()
        self._steps.append(steps)

        def work() -> None:
            while (inputs := steps.get()) is not None:
                runner.hidden(inputs)

        threading.Thread(target=work, daemon=True).start()

    def send(self, inputs: StepInputs | None) -> None:
        for steps in self._steps:
            steps.put(inputs)

    def why(self, error: Exception) -> str:
        return str(error)

    def watch(self, on_lost: Any) -> None:
        pass

    def stop(self) -> None:
        self.send(None)


def engine_of_threads(folder: Path, ranks: int, quantization: Quantization) -> Engine:
    checkpoint = open_checkpoint(folder)
    whole = load(
        str(folder),
        LoadOptions(quantization, "cpu", "float32", block_tokens=BLOCK_TOKENS),
        lambda _phase: None,
    )
    task = PartTask(
        path=folder,
        quantization=quantization,
        attention=choose_attention(AttentionName.AUTO, torch.device("cpu")),
        device="cpu",
        dtype="float32",
        context_tokens=128,
        blocks=whole.runner.blocks,
        block_tokens=BLOCK_TOKENS,
        threads=1,
        rank=Rank(0, ranks),
    )
    threads: Any = Threads(ranks)
    for index in range(1, ranks):
        part = replace(task, rank=Rank(index, ranks))
        threads.follow(load_part(checkpoint, part, partial(threads.sum_ranks, index)))
    leading = partial(LeadingRunner, followers=threads)
    runner = load_part(checkpoint, task, partial(threads.sum_ranks, 0), leading)
    return Engine(tight(replace(whole, runner=runner, other_ranks=threads)))


def tight(loaded: Loaded) -> Loaded:
    return replace(loaded, limits=Limits(step_tokens=17, step_requests=8, reserve_tokens=0))


@pytest.mark.parametrize(
    ("family", "ranks", "quantization"),
    [
        *(pytest.param(family, 2, Quantization.NONE, id=f"{family} on 2") for family in FAMILIES),
        pytest.param("llama", 6, Quantization.NONE, id="three ranks to a head of keys"),
        pytest.param("qwen2", 2, Quantization.INT8, id="int8 and biases"),
        pytest.param("gemma2", 3, Quantization.INT4, id="int4 in whole groups"),
        pytest.param("mixtral", 2, Quantization.FP8, id="experts in fp8"),
    ],
)
def test_several_ranks_give_the_tokens_of_one(
    tmp_path: Path, family: str, ranks: int, quantization: Quantization
) -> None:
    changes: dict[str, Any] = {"num_key_value_heads": 3} if ranks == 3 else {}
    save_model(family_model(family, **changes), tmp_path)
    with running(an_engine(tmp_path, step_tokens=17, quantization=quantization)) as engine:
        alone = answer(engine, PROMPTS, NEW_TOKENS)
    with running(engine_of_threads(tmp_path, ranks, quantization)) as engine:
        together = answer(engine, PROMPTS, NEW_TOKENS)
    if quantization in (Quantization.NONE, Quantization.FP8):
        assert together == alone
    else:  # their kernels round to bf16, and so the sum of parts may round otherwise
        same = sum(a == b for a, b in zip(together, alone, strict=True))
        assert same >= len(PROMPTS) - 2


@contextmanager
def two_processes(folder: Path) -> Iterator[tuple[Engine, Any]]:
    options = LoadOptions(
        device="cpu", dtype="float32", block_tokens=BLOCK_TOKENS, tensor_parallel=2
    )
    loaded = tight(load(str(folder), options, lambda _phase: None))
    with running(Engine(loaded)) as engine:
        yield engine, loaded.other_ranks


def test_two_processes_give_the_tokens_of_one_and_a_killed_one_ends_the_engine_by_name(
    tiny_llama: Path,
) -> None:
    with running(an_engine(tiny_llama, step_tokens=17)) as engine:
        alone = answer(engine, PROMPTS, NEW_TOKENS)
    failures: SimpleQueue[str] = SimpleQueue()
    with two_processes(tiny_llama) as (engine, ranks):
        engine.on_failure = failures.put
        assert answer(engine, PROMPTS, NEW_TOKENS) == alone
        (follower,) = ranks.process_ids
        os.kill(follower, signal.SIGKILL)
        assert failures.get(timeout=60) == "the engine failed: rank 1 ended by signal 9"
        assert not engine.healthy


def test_a_request_whose_rank_is_killed_ends_with_that_error(tiny_llama: Path) -> None:
    events: SimpleQueue[Any] = SimpleQueue()
    with two_processes(tiny_llama) as (engine, ranks):
        endless = SamplingParameters(max_tokens=120, temperature=0.0, ignore_eos=True)
        engine.submit(GenerationRequest("a", (1, 2, 3), endless), events.put)
        events.get(timeout=60)
        os.kill(ranks.process_ids[0], signal.SIGKILL)
        while (event := events.get(timeout=60)).finish_reason is None:
            pass
    assert event.finish_reason == "error"
    assert "rank 1 ended by signal 9" in str(event.error)


def test_stopping_the_engine_ends_every_rank(tiny_llama: Path) -> None:
    with two_processes(tiny_llama) as (_, ranks):
        (follower,) = ranks.process_ids
    with pytest.raises(ProcessLookupError):
        os.kill(follower, 0)
