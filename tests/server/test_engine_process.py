"""The engine behind a process boundary: what crosses it, and what happens when one side dies."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.engine import EngineStopped, GenerationRequest, SamplingParameters, TokenEvent
from llm_engine.engine.simulation import SENTENCE, simulated_engine
from llm_engine.sampling.sampled import TokenLogprob
from llm_engine.server import link
from llm_engine.server.engine_process import EngineProcess
from llm_engine.server.lifecycle import Lifecycle
from llm_engine.server.service import Service
from llm_engine.server.streams import STALLED_AFTER_S
from llm_engine.tokenizer.byte_tokenizer import ByteTokenizer
from tests.server.profiles import a_profile
from tests.server.running import free_port, running
from tests.server.served import events, until


@asynccontextmanager
async def launched(**fields: Any) -> AsyncIterator[EngineProcess]:
    engine = await EngineProcess.launch()
    try:
        make = partial(simulated_engine, a_profile(**fields))
        await engine.load(make, ByteTokenizer(), lambda _phase: None)
        yield engine
    finally:
        engine.kill()


def a_request(name: str = "a", max_tokens: int = 8, ignore_eos: bool = True) -> GenerationRequest:
    sampling = SamplingParameters(max_tokens=max_tokens, ignore_eos=ignore_eos)
    return GenerationRequest(name, tuple(b"hello"), sampling)


def tokens_of(taken: list[TokenEvent]) -> bytes:
    return bytes(token for event in taken for token in event.token_ids)


async def test_tokens_times_and_counts_cross_the_boundary() -> None:
    async with launched() as engine:
        steps: list[int] = []
        engine.on_step = lambda step: steps.append(step.sampled_tokens)
        taken: list[TokenEvent] = []
        engine.submit(a_request(max_tokens=8), taken.append)
        assert (engine.stats().waiting, engine.stats().pending_prefill_tokens) == (1, 5)
        await until(lambda: bool(taken) and taken[-1].finish_reason is not None)
        assert tokens_of(taken) == SENTENCE[:8]
        assert taken[-1].finish_reason == "length"
        assert taken[-1].times is not None
        assert (taken[-1].times.prompt_tokens, taken[-1].times.output_tokens) == (5, 8)
        await until(lambda: sum(steps) == 8)
        assert engine.stats().is_idle
        assert engine.stats().kv_usage == 0


async def test_an_abort_frees_the_blocks_on_the_other_side() -> None:
    async with launched() as engine:
        taken: list[TokenEvent] = []
        engine.submit(a_request(max_tokens=900), taken.append)
        await until(lambda: bool(taken))
        assert engine.stats().kv_usage > 0
        engine.abort("a")
        engine.abort("never heard of")
        await until(lambda: taken[-1].finish_reason == "abort")
        await until(lambda: engine.stats().kv_usage == 0)


async def test_a_request_that_can_never_run_ends_as_an_error_of_its_own() -> None:
    async with launched() as engine:
        taken: list[TokenEvent] = []
        engine.submit(a_request("long", max_tokens=5000), taken.append)
        await until(lambda: bool(taken))
        assert taken[0].finish_reason == "error"
        assert "exceed the context of 1024" in str(taken[0].error)
        assert engine.healthy
        assert engine.stats().is_idle


async def test_a_failed_start_is_named() -> None:
    with pytest.raises(ModelRefused, match="asked for a failed start") as refusal:
        async with launched(failures={"start_error": 1}):
            pass
    assert refusal.value.reason is FailureReason.START_FAILED


async def test_a_start_that_is_given_up_leaves_no_process_and_no_complaint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def give_up() -> None:
        engine = await EngineProcess.launch()
        engine.kill()
        await until(lambda: engine._failure is not None)

    await give_up()
    gc.collect()  # a future that nobody asked for its exception complains now
    assert caplog.messages == []


async def test_a_process_that_is_killed_ends_its_requests_and_says_how() -> None:
    async with launched() as engine:
        words: list[str] = []
        engine.on_failure = words.append
        taken: list[TokenEvent] = []
        engine.submit(a_request(max_tokens=900), taken.append)
        await until(lambda: bool(taken))
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: bool(words))
        assert "SIGKILL" in words[0]
        assert taken[-1].finish_reason == "error"
        assert not engine.healthy
        with pytest.raises(EngineStopped):
            engine.submit(a_request("b"), taken.append)


async def test_an_engine_whose_steps_all_fail_ends_its_process() -> None:
    async with launched(failures={"step_error": 1}) as engine:
        words: list[str] = []
        engine.on_failure = words.append
        for name in "abc":
            taken: list[TokenEvent] = []
            engine.submit(a_request(name), taken.append)
            await until(partial(bool, taken))
            assert taken[0].finish_reason == "error"
        await until(lambda: bool(words))
        assert "steps in a row failed" in words[0]


async def test_a_stopped_process_is_noticed_after_30_s_without_a_token() -> None:
    """SIGSTOP: the socket stays open and nothing moves."""
    now_s = [0.0]
    async with launched() as engine:
        service = Service("s", engine, Lifecycle(0.0), lambda: None, clock=lambda: now_s[0])
        await service.warm_up()
        os.kill(engine.pid, signal.SIGSTOP)
        with service.streams.open(a_request()):
            now_s[0] += STALLED_AFTER_S
            assert service.streams.why_stalled() is None
            now_s[0] += 1
            assert "nothing was computed for 31 s" in str(service.streams.why_stalled())


@pytest.mark.parametrize(
    "event",
    [
        TokenEvent("a", (1, 2)),
        TokenEvent("a", (1,), logprobs=(TokenLogprob(1, -0.5, ((1, -0.5),)),)),
        TokenEvent("a", (), "error", error="why"),
        TokenEvent("a", (7,), cached_tokens=16),
    ],
    ids=["tokens alone", "log-probabilities", "an end", "cached tokens"],
)
def test_events_survive_the_way_in_any_pieces(event: TokenEvent) -> None:
    data = link.frame([link.pack(event)]) * 2
    frames = link.Frames()
    arrived = [m for i in range(len(data)) for m in frames.feed(data[i : i + 1])]
    assert [TokenEvent(*packed) for (packed,) in arrived] == [event, event]


# The whole server, with its engine in a process of its own.


def a_server(drain_s: float = 30, **fields: Any) -> tuple[tuple[str, ...], int]:
    port = free_port()
    profile = a_profile(**fields).model_dump_json()
    return ("-m", "tests.server.simulated_server", str(port), str(drain_s), profile), port


def child_of(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def stream_of(client: httpx.AsyncClient, accepted: list[int]) -> str:
    """Read a stream to its end; its status is noted as soon as it is there."""
    body = {"model": "fake", "prompt": "hi", "max_tokens": 99, "stream": True}
    async with client.stream("POST", "/v1/completions", json=body) as response:
        accepted.append(response.status_code)
        return (await response.aread()).decode()


async def test_sigterm_under_load_fails_none_of_200_streams_and_leaves_no_process() -> None:
    words, port = a_server(step_s=0.005)
    everybody = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, limits=httpx.Limits()
    )
    async with running(*words, port=port) as server, everybody as client:
        await server.wait_for("/readyz")
        child = child_of(server.process.pid)
        accepted: list[int] = []
        streams = [asyncio.create_task(stream_of(client, accepted)) for _ in range(200)]
        await until(lambda: len(accepted) == 200)
        server.process.send_signal(signal.SIGTERM)
        texts = []
        for body in await asyncio.gather(*streams):
            *chunks, end = events(body)
            if not chunks:  # on a busy machine some come after the signal, and are sent elsewhere
                assert end["error"]["code"] == "draining"
                continue
            assert end == "[DONE]"
            texts.append("".join(chunk["choices"][0]["text"] for chunk in chunks))
        assert len(texts) >= 16
        assert set(texts) == {SENTENCE[:40].decode()}
        assert await server.exit_code() == 0
        assert accepted == [200] * 200
        await until(lambda: is_gone(child))


async def test_an_engine_that_is_killed_under_load_ends_streams_and_process_with_its_name() -> None:
    words, port = a_server(step_s=0.05)
    async with running(*words, port=port) as server:
        await server.wait_for("/readyz")
        streams = [asyncio.create_task(server.stream()) for _ in range(5)]
        await server.wait_for_line('vllm:num_requests_running{model_name="fake"} 5.0')
        os.kill(child_of(server.process.pid), signal.SIGKILL)
        for body in await asyncio.gather(*streams):
            assert events(body)[-1]["error"]["type"] == "server_error"
        assert await server.exit_code() == 3
        said = (await server.process.communicate())[1].decode().splitlines()
        assert said[-1].startswith("llm-engine: EngineFailed: ")
        assert "SIGKILL" in said[-1]


@pytest.mark.parametrize("is_stopped", [False, True], ids=["running", "stopped"])
async def test_the_engine_does_not_outlive_a_server_that_is_killed(is_stopped: bool) -> None:
    words, port = a_server()
    async with running(*words, port=port) as server:
        await server.wait_for("/readyz")
        child = child_of(server.process.pid)
        if is_stopped:
            os.kill(child, signal.SIGSTOP)
        server.process.kill()
        await server.process.wait()
        await until(lambda: is_gone(child))
