"""Decoding steps over tensors that never move: a GPU records them, here they are run again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_engine.contract.arguments import AttentionName
from llm_engine.engine import Engine
from llm_engine.engine.decode_graphs import Compute, DecodeGraphs
from llm_engine.engine.loading import LoadOptions, load
from llm_engine.engine.runner import Runner
from llm_engine.scheduling.plan import Limits
from tests.engine.tiny_llama import an_engine, answer, greedy, prompts_of

PROMPTS = prompts_of(5, 19, 2, 11, 7)


class Recorder:
    """Counts what is recorded and what is replayed."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def capture(self, compute: Compute) -> Compute:
        self.recorded += 1

        def replay() -> Any:
            self.replayed += 1
            return compute()

        return replay


def a_graphed_engine(folder: Path, recorder: Recorder, most_requests: int) -> Engine:
    options = LoadOptions(device="cpu", dtype="float32", attention=AttentionName.TRITON)
    loaded = load(str(folder), options, lambda _phase: None)
    runner: Any = loaded.runner
    graphs = DecodeGraphs(
        runner._decoder, runner._attention, most_requests, most_blocks=9, capture=recorder.capture
    )
    graphed = Runner(runner._decoder, runner._cache, runner._attention, 1, graphs)
    limits = Limits(step_tokens=64, step_requests=16)
    return Engine(replace(loaded, runner=graphed, limits=limits))


@pytest.mark.parametrize("most_requests", [8, 3], ids=["all fit", "only small steps fit"])
def test_tokens_are_the_same_through_graphs(tiny_llama: Path, most_requests: int) -> None:
    recorder, sampling = Recorder(), greedy(5)
    answers = []
    graphed = a_graphed_engine(tiny_llama, recorder, most_requests)
    for engine in (an_engine(tiny_llama), graphed):
        engine.start()
        answers.append([answer(engine, PROMPTS, sampling), answer(engine, PROMPTS[:1], sampling)])
        engine.stop()
    assert answers[0] == answers[1]
    assert recorder.replayed > recorder.recorded > 0


def test_a_graph_is_recorded_once_for_its_size(tiny_llama: Path) -> None:
    recorder = Recorder()
    engine = a_graphed_engine(tiny_llama, recorder, 8)
    engine.start()
    answer(engine, PROMPTS[:1], greedy(6))
    answer(engine, PROMPTS[1:2], greedy(6))
    engine.stop()
    assert recorder.recorded == 1
    assert recorder.replayed == 10  # the first token of each comes with its prompt
