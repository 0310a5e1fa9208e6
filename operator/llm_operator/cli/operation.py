"""The operator's process: which parts run, who feeds whom, and the order in which they end."""

import asyncio
import logging
import random
import signal
import time
from collections.abc import Coroutine, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llm_engine.contract.arguments import DEFAULT_PORT
from llm_operator import handlers
from llm_operator.api import names
from llm_operator.api.served_names import claim_of
from llm_operator.cluster.carry_out import Writer
from llm_operator.cluster.catalogue import apply_catalogue
from llm_operator.cluster.connection import connect
from llm_operator.cluster.election import Election
from llm_operator.cluster.gateways import gateway_pods
from llm_operator.cluster.inventory import Inventory
from llm_operator.cluster.kinds import POD
from llm_operator.cluster.objects import Objects
from llm_operator.cluster.probes import Probes, Progress, serving
from llm_operator.cluster.reconciler import Reconciler
from llm_operator.cluster.resync import Resync
from llm_operator.cluster.store import Store
from llm_operator.cluster.telemetry import Telemetry
from llm_operator.cluster.work_queue import Key, WorkQueue
from llm_operator.reconcile.observed import EngineSettings
from llm_operator.reconcile.pods import Pod, pod_of
from llm_operator.scaling import Samples
from llm_operator.scrape import EngineTarget, GatewayTarget, Scraper

log = logging.getLogger(__name__)

TICK_S: Final = 5.0
_LOOKOUT_S: Final = 0.5
_KOPF_ENDS_S: Final = 1.0  # nothing depends on a watch any more


@dataclass(frozen=True)
class Settings:
    """Everything the operator's command line says.

    namespaces  whose LLMDeployments are served; empty: all
    identity    of this process in the Lease; never used twice
    """

    engine: EngineSettings
    identity: str
    namespaces: tuple[str, ...] = ()
    gateway_selector: str = f"{names.COMPONENT_LABEL}={names.GATEWAY_COMPONENT}"
    catalogue: Path | None = None
    host: str = "0.0.0.0"
    health_port: int = names.OPERATOR_HEALTH_PORT
    metrics_port: int = names.OPERATOR_METRICS_PORT
    workers: int = 4


async def run(settings: Settings) -> int:
    """Run the operator until SIGTERM; return 0, or 1 when a part of it has given up."""
    async with connect() as client:
        return await Operation(client, settings).run()


class Operation:
    """The parts of one process, wired together."""

    def __init__(self, client: Any, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._store = Store()
        self._queue = WorkQueue(time.monotonic, random.random)
        self._telemetry = Telemetry()
        self._lease_objects = Objects(client)  # never held up by what the others ask
        self._election = Election(self._lease_objects, settings.engine.namespace, settings.identity)
        self._objects = Objects(client, may_write=lambda: self._election.leads)
        self._resync = Resync(self._objects, self._store, settings.namespaces)
        self._inventory = Inventory(self._objects, self._store, self._election)
        self._scraper = Scraper(self._wake)
        self._reconciler = Reconciler(
            self._store,
            self._queue,
            Writer(self._objects, self._store, settings.identity),
            self._election,
            self._telemetry,
            settings.engine,
            self._samples_of,
        )
        self._last_tick_s = time.monotonic()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Run all parts; end them in order: first those that write, then the Lease, then kopf."""
        self._own_signals()
        settings = self._settings
        probes = Probes(
            self._progress,
            self._resync.complete.is_set,
            self._telemetry.registry,
            self._refresh_metrics,
        )
        async with serving(probes, settings.host, settings.health_port, settings.metrics_port):
            election = asyncio.create_task(self._election.run(), name="election")
            parts = [asyncio.create_task(part, name=name) for name, part in self._parts().items()]
            stop_kopf = asyncio.Event()
            watching = asyncio.create_task(self._watch(stop_kopf), name="watches")
            stopping = asyncio.create_task(self._stop.wait(), name="stop")
            try:
                await asyncio.wait(
                    [election, watching, stopping, *parts], return_when=asyncio.FIRST_COMPLETED
                )
                return self._outcome([election, watching, *parts])
            finally:
                await _end(parts)
                await _end([election])
                stop_kopf.set()
                await asyncio.wait([watching], timeout=_KOPF_ENDS_S)
                await _end([watching, stopping])

    def _parts(self) -> dict[str, Coroutine[Any, Any, None]]:
        workers = {f"worker {n}": self._reconciler.work() for n in range(self._settings.workers)}
        return {
            "resync": self._resync.run(),
            "inventory": self._inventory.run(),
            "leadership": self._lead(),
            "gateways": self._follow_gateways(),
            **workers,
        }

    def _outcome(self, tasks: list[asyncio.Task[None]]) -> int:
        """Return the exit status: a part that ended by itself is a failure."""
        if self._stop.is_set():
            return 0
        for task in tasks:
            if task.done() and not task.cancelled():
                log.critical("%s gave up", task.get_name(), exc_info=task.exception())
        return 1

    async def _watch(self, stop: asyncio.Event) -> None:
        """Watch with kopf once everything is listed: kopf needs the custom resources to exist."""
        await self._resync.complete.wait()
        wake = handlers.Wake(self._store, self._queue)
        await handlers.watch(wake, self._settings.namespaces, stop, self._own_signals)

    async def _lead(self) -> None:
        """While this process leads: read the load, and look at everything each few seconds."""
        await self._resync.complete.wait()
        while True:
            await self._election.won()
            self._reconciler.forget_all()  # another process may have acted since we last led
            if self._settings.catalogue:
                await apply_catalogue(self._objects, self._settings.catalogue)
            scraping = asyncio.create_task(self._scraper.run(), name="scraper")
            try:
                await self._tick()
            finally:
                await _end([scraping])

    async def _tick(self) -> None:
        """Ask for a look at everything, again and again, until this process leads no more."""
        due_s = 0.0
        while self._election.leads:
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + TICK_S
                for key in self._store.deployments():
                    self._queue.remind(key)
            self._last_tick_s = time.monotonic()
            await asyncio.sleep(_LOOKOUT_S)

    async def _follow_gateways(self) -> None:
        """Tell the scraper which gateways there are."""
        namespace, selector = self._settings.engine.namespace, self._settings.gateway_selector
        async for pods in gateway_pods(self._client, namespace, selector):
            self._scraper.set_gateways(
                GatewayTarget(pod.name, _url(pod, names.GATEWAY_METRICS_PORT), pod.incarnation)
                for pod in pods
                if pod.ip and not pod.terminating
            )

    def _samples_of(self, key: Key) -> Samples:
        """Return what is known of the load on a model, and keep the scraper's targets current."""
        deployment = self._store.deployment(key)
        claim = claim_of(deployment) if deployment else None
        if claim is None:
            self._scraper.forget(key)
            return Samples.none()
        pods = (pod_of(raw) for raw in self._store.family(key) if raw["kind"] == POD.name)
        engines = [
            EngineTarget(pod.name, _url(pod, DEFAULT_PORT), pod.incarnation)
            for pod in pods
            if pod.component == names.ENGINE_COMPONENT and pod.ip and not pod.terminating
        ]
        self._scraper.set_engines(key, claim.served_name, engines)
        return self._scraper.samples_of(key)

    def _wake(self, key: Hashable) -> None:
        """A gateway holds requests for this model: look at once."""
        assert isinstance(key, Key)
        self._queue.add(key)

    def _progress(self) -> Progress:
        now_s = time.monotonic()
        loops = {
            "election": now_s - self._election.last_try_s,
            "resync": now_s - self._resync.last_try_s,
            "inventory": now_s - self._inventory.last_try_s,
        }
        if self._election.leads:
            loops["leadership"] = now_s - self._last_tick_s
        return Progress(
            loops,
            self._queue.oldest_wait_s() if self._election.leads else 0.0,
            self._store.watch_lag_s(),
            now_s - max(self._objects.last_contact_s, self._lease_objects.last_contact_s),
        )

    def _refresh_metrics(self) -> None:
        """Bring up to date what is only known when asked."""
        progress = self._progress()
        self._telemetry.leader.set(self._election.leads)
        self._telemetry.queue_length.set(len(self._queue))
        self._telemetry.queue_age_seconds.set(progress.queue_s)
        self._telemetry.watch_lag_seconds.set(progress.watch_lag_s)
        self._telemetry.contact_age_seconds.set(progress.contact_s)

    def _own_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)


def _url(pod: Pod, port: int) -> str:
    host = f"[{pod.ip}]" if ":" in (pod.ip or "") else pod.ip
    return f"http://{host}:{port}/metrics"


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended; what they still raise is told."""
    for task in tasks:
        task.cancel()
    for task, result in zip(
        tasks, await asyncio.gather(*tasks, return_exceptions=True), strict=True
    ):
        if isinstance(result, Exception):
            log.error("%s ended badly", task.get_name(), exc_info=result)
