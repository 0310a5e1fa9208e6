"""Reads engines and gateways again and again, and keeps what was read as plain samples.

Every target has its own task: one that is slow, huge or gone costs the others nothing.
"""

import asyncio
import logging
import time
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic

import aiohttp

from llm_operator.scaling.samples import (
    ENGINE_INTERVAL_S,
    GATEWAY_INTERVAL_S,
    KEPT_S,
    EngineReading,
    GatewayReading,
    Reading,
    Samples,
    Series,
)
from llm_operator.scrape.exposition import Point, parse
from llm_operator.scrape.fetch import NotStarted, Unreachable, fetch, open_session
from llm_operator.scrape.readings import (
    ENGINE_NAMES,
    GATEWAY_NAMES,
    GatewayReadings,
    Unreadable,
    engine_reading,
)

logger = logging.getLogger(__name__)

LONG_TEXT: Final = 200_000
"""Characters; parsing more than this takes longer than others should wait (10 ms)."""


@dataclass(frozen=True)
class EngineTarget:
    """Where the metrics of one replica are; `incarnation` changes when its container restarts."""

    replica: str
    url: str
    incarnation: str = ""


@dataclass(frozen=True)
class GatewayTarget:
    """Where the metrics of one gateway are; `incarnation` changes when its container restarts."""

    name: str
    url: str
    incarnation: str = ""


class Track(Generic[Reading]):
    """The readings of one target that are young enough, and why the last look gave none."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque()
        self._problem: str | None = None

    def add(self, reading: Reading) -> None:
        """Keep a reading, and drop those that have grown too old."""
        self._readings.append(reading)
        self._problem = None
        while self._readings[0].at_s < reading.at_s - KEPT_S:
            self._readings.popleft()

    def fail(self, problem: str) -> None:
        """Note that a look gave nothing."""
        self._problem = problem

    def series(self) -> Series[Reading]:
        """Return what is known, as data that no longer changes."""
        return Series(tuple(self._readings), self._problem)


@dataclass
class Engine:
    """An engine that is read: where, its readings and the task that reads it."""

    target: EngineTarget
    track: Track[EngineReading] = field(default_factory=Track)
    task: asyncio.Task[None] | None = None


@dataclass
class Gateway:
    """A gateway that is read: where, its readings by served name and the task that reads it."""

    target: GatewayTarget
    tracks: dict[str, Track[GatewayReading]] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class Scraper:
    """Reads every engine each 2 s and every gateway each second, in the loop that runs `run`.

    on_held  is called with the key of a model each time that a gateway holds requests for it
    """

    def __init__(self, on_held: Callable[[Hashable], None]) -> None:
        self._on_held = on_held
        self._served_names: dict[Hashable, str] = {}
        self._engines: dict[Hashable, dict[str, Engine]] = {}
        self._gateways: dict[str, Gateway] = {}
        self._session: aiohttp.ClientSession | None = None

    def set_engines(self, key: Hashable, served_name: str, engines: Iterable[EngineTarget]) -> None:
        """Read exactly these engines for `key` from now on; what was read of them is kept."""
        self._served_names[key] = served_name
        known = self._engines.setdefault(key, {})
        targets = {target.replica: target for target in engines}
        for name in known.keys() - targets.keys():
            _stop(known.pop(name).task)
        for name, target in targets.items():
            known.setdefault(name, Engine(target)).target = target
        self._start()

    def set_gateways(self, gateways: Iterable[GatewayTarget]) -> None:
        """Read exactly these gateways from now on; what was read of them is kept."""
        targets = {target.name: target for target in gateways}
        for name in self._gateways.keys() - targets.keys():
            _stop(self._gateways.pop(name).task)
        for name, target in targets.items():
            self._gateways.setdefault(name, Gateway(target)).target = target
        self._start()

    def forget(self, key: Hashable) -> None:
        """Stop reading for a model that is gone."""
        for engine in self._engines.pop(key, {}).values():
            _stop(engine.task)
        gone = self._served_names.pop(key, None)
        if gone is not None and gone not in self._served_names.values():
            for gateway in self._gateways.values():
                gateway.tracks.pop(gone, None)

    def samples_of(self, key: Hashable) -> Samples:
        """Return what is known of a model now; every target that is to be read is in it."""
        served_name = self._served_names.get(key, "")
        nothing: Track[GatewayReading] = Track()
        return Samples(
            taken_at_s=time.monotonic(),
            engines={
                name: engine.track.series() for name, engine in self._engines.get(key, {}).items()
            },
            gateways={
                name: gateway.tracks.get(served_name, nothing).series()
                for name, gateway in self._gateways.items()
            },
        )

    async def run(self) -> None:
        """Read until cancelled."""
        async with open_session() as session:
            self._session = session
            self._start()
            try:
                await asyncio.Event().wait()
            finally:
                self._session = None
                await self._stop_all()

    def _start(self) -> None:
        """Give every target that has none its task; does nothing before `run`."""
        session = self._session
        if session is None:
            return
        for engines in self._engines.values():
            for name, engine in engines.items():
                if engine.task is None:
                    look = partial(self._look_at_engine, session, engine)
                    engine.task = asyncio.create_task(_repeat(look, ENGINE_INTERVAL_S, name))
        for name, gateway in self._gateways.items():
            if gateway.task is None:
                look = partial(self._look_at_gateway, session, gateway)
                gateway.task = asyncio.create_task(_repeat(look, GATEWAY_INTERVAL_S, name))

    async def _look_at_engine(self, session: aiohttp.ClientSession, engine: Engine) -> None:
        """Read an engine once."""
        target = engine.target
        try:
            points = await _points(session, target.url, ENGINE_NAMES)
            engine.track.add(engine_reading(points, time.monotonic(), target.incarnation))
        except NotStarted:
            return  # a replica that turns ready now would else begin its life with a problem
        except (Unreachable, Unreadable) as problem:
            engine.track.fail(str(problem))

    async def _look_at_gateway(self, session: aiohttp.ClientSession, gateway: Gateway) -> None:
        """Read a gateway once, for all models."""
        target = gateway.target
        keys_by_name: dict[str, list[Hashable]] = {}
        try:
            points = await _points(session, target.url, GATEWAY_NAMES)
        except Unreachable as problem:
            for served_name in set(self._served_names.values()):
                gateway.tracks.setdefault(served_name, Track()).fail(str(problem))
            return
        readings = GatewayReadings(points, time.monotonic(), target.incarnation)
        for key, served_name in self._served_names.items():
            keys_by_name.setdefault(served_name, []).append(key)
        for served_name, keys in keys_by_name.items():
            track = gateway.tracks.setdefault(served_name, Track())
            try:
                reading = readings.of(served_name)
            except Unreadable as problem:
                track.fail(str(problem))
                continue
            track.add(reading)
            if reading.held > 0:
                for key in keys:
                    self._on_held(key)

    async def _stop_all(self) -> None:
        """End all tasks and wait until they have ended."""
        engines = [engine for known in self._engines.values() for engine in known.values()]
        targets: list[Engine | Gateway] = [*engines, *self._gateways.values()]
        tasks = [target.task for target in targets if target.task is not None]
        for target in targets:
            target.task = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _points(
    session: aiohttp.ClientSession, url: str, names: frozenset[str]
) -> dict[str, list[Point]]:
    """Fetch and parse; a long text is parsed beside the loop, so that nobody waits for it."""
    text = await fetch(session, url)
    if len(text) < LONG_TEXT:
        return parse(text, names)
    return await asyncio.to_thread(parse, text, names)


async def _repeat(look: Callable[[], Awaitable[None]], interval_s: float, name: str) -> None:
    """Look at once and then each `interval_s`; names spread the targets over the interval."""
    due_s = time.monotonic()
    wait_s = interval_s * (0.5 + zlib.crc32(name.encode()) / 2**32)
    while True:
        try:
            await look()
        except Exception:
            logger.exception("reading the metrics of %s failed; it goes on", name)
        due_s = max(due_s + wait_s, time.monotonic())
        await asyncio.sleep(due_s - time.monotonic())
        wait_s = interval_s


def _stop(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
