"""The scraper against real servers on loopback: good, slow, huge, broken, gone."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from llm_engine.contract import metrics as engine
from llm_operator.scaling import Replica, load_of
from llm_operator.scaling.samples import EngineReading, Series
from llm_operator.scrape import EngineTarget, GatewayTarget, Scraper
from tests.scrape.exporters import (
    EngineMetrics,
    GatewayMetrics,
    Handler,
    answering,
    broken,
    elsewhere,
    endless,
    never_answering,
    served,
)

KEY = ("default", "smollm2")


@asynccontextmanager
async def scraping(
    engines: dict[str, Handler], gateways: dict[str, Handler] | None = None
) -> AsyncIterator[tuple[Scraper, list[Hashable]]]:
    """Run a scraper over these engines and gateways; yield it with the keys it was woken for."""
    woken: list[Hashable] = []
    scraper = Scraper(on_held=woken.append)
    gateways = gateways or {}
    async with served(**engines, **gateways) as urls:
        scraper.set_engines(KEY, "smollm2", [EngineTarget(name, urls[name]) for name in engines])
        scraper.set_gateways([GatewayTarget(name, urls[name]) for name in gateways])
        running = asyncio.create_task(scraper.run())
        try:
            yield scraper, woken
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def until(holds: Callable[[], object], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)


def engine_series(scraper: Scraper, name: str) -> Series[EngineReading]:
    return scraper.samples_of(KEY).engines[name]


async def test_engines_and_gateways_are_read_again_and_again() -> None:
    metrics, gateway = EngineMetrics(), GatewayMetrics("smollm2", "other")
    metrics.gauge(engine.REQUESTS_RUNNING, 2)
    gateway.arrivals.labels("smollm2").inc(5)
    handlers = {"r0": answering(metrics.text)}
    async with scraping(handlers, {"g0": answering(gateway.text)}) as (scraper, woken):
        await until(lambda: len(engine_series(scraper, "r0").readings) >= 2)
        samples = scraper.samples_of(KEY)
    load = load_of([Replica("r0", ready=True)], 1, samples)
    assert load.running == 2
    assert samples.gateways["g0"].readings[-1].arrivals == 5
    assert not woken


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (never_answering, "no answer within 2 s"),
        (endless, "more than 5 MB"),
        (broken, "HTTP 500"),
        (elsewhere, "HTTP 302"),
        (answering(lambda: "no metrics here"), "is missing"),
        (answering(lambda: EngineMetrics().text().replace("} 0.0\n", "} NaN\n")), "is nan"),
    ],
    ids=["slow", "100 MB", "error", "redirect", "other text", "not a number"],
)
async def test_a_bad_engine_is_named_and_harms_no_other(handler: Handler, problem: str) -> None:
    handlers = {"bad": handler, "good": answering(EngineMetrics().text)}
    async with scraping(handlers) as (scraper, _):
        await until(lambda: engine_series(scraper, "bad").problem)
        await until(lambda: engine_series(scraper, "good").readings)
        assert problem in (engine_series(scraper, "bad").problem or "")
        assert engine_series(scraper, "bad").readings == ()
        assert engine_series(scraper, "good").problem is None


async def test_an_engine_that_is_gone_keeps_its_readings_and_says_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    metrics = EngineMetrics()
    async with scraping({"r0": answering(metrics.text)}) as (scraper, _):
        await until(lambda: engine_series(scraper, "r0").readings)
        scraper.set_engines(KEY, "smollm2", [EngineTarget("r0", f"http://127.0.0.1:{port}/x")])
        await until(lambda: engine_series(scraper, "r0").problem)
        assert "refused" in (engine_series(scraper, "r0").problem or "")
        assert engine_series(scraper, "r0").readings


async def test_a_restart_is_seen_as_one() -> None:
    metrics = EngineMetrics()
    metrics.count(engine.GENERATION_TOKENS, 500)
    texts = [metrics.text() + "process_start_time_seconds 1.0\n"]
    async with scraping({"r0": answering(lambda: texts[0])}) as (scraper, _):
        await until(lambda: engine_series(scraper, "r0").readings)
        texts[0] = EngineMetrics().text() + "process_start_time_seconds 2.0\n"
        await until(lambda: len(engine_series(scraper, "r0").readings) >= 2)
        first, *_, last = engine_series(scraper, "r0").readings
    assert (first.output_tokens, last.output_tokens) == (500, 0)
    assert first.incarnation != last.incarnation


async def test_a_held_request_wakes_its_model_within_a_second_or_so() -> None:
    gateway = GatewayMetrics("smollm2", "other")
    async with scraping({}, {"g0": answering(gateway.text)}) as (scraper, woken):
        await until(lambda: scraper.samples_of(KEY).gateways["g0"].readings)
        gateway.held.labels("other").set(1)
        gateway.held.labels("smollm2").set(1)
        await until(lambda: woken)
    assert set(woken) == {KEY}


async def test_a_gateway_that_does_not_know_the_model_is_a_gap() -> None:
    gateway = GatewayMetrics("other")
    async with scraping({}, {"g0": answering(gateway.text)}) as (scraper, _):
        await until(lambda: scraper.samples_of(KEY).gateways["g0"].problem)
        load = load_of([], 0, scraper.samples_of(KEY))
    assert [gap.reason for gap in load.gaps] == ["ScrapeFailed"]
    assert "no metrics of model smollm2" in load.gaps[0].message


async def test_a_replica_that_is_still_loading_is_not_said_to_fail() -> None:
    looks: list[int] = []

    async def loading(_: web.Request) -> web.StreamResponse:
        looks.append(503)
        return web.Response(status=503)

    async with scraping({"r0": loading}, {}) as (scraper, _):
        await until(lambda: len(looks) >= 2)
        assert engine_series(scraper, "r0").problem is None
        load = load_of([Replica("r0", ready=True)], 1, scraper.samples_of(KEY))
    assert "NotYetScraped" in [gap.reason for gap in load.gaps]


async def test_targets_come_and_go_while_it_runs() -> None:
    metrics = EngineMetrics()
    handlers = {name: answering(metrics.text) for name in ("r0", "r1")}
    async with served(**handlers) as urls:
        scraper = Scraper(on_held=print)
        running = asyncio.create_task(scraper.run())
        await asyncio.sleep(0)
        scraper.set_engines(KEY, "smollm2", [EngineTarget("r0", urls["r0"])])
        await until(lambda: engine_series(scraper, "r0").readings)
        scraper.set_engines(KEY, "smollm2", [EngineTarget("r1", urls["r1"])])
        await until(lambda: engine_series(scraper, "r1").readings)
        assert set(scraper.samples_of(KEY).engines) == {"r1"}
        scraper.forget(KEY)
        assert not scraper.samples_of(KEY).engines
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left


async def test_a_model_that_nobody_set_has_no_samples() -> None:
    assert Scraper(on_held=print).samples_of("unknown").engines == {}
