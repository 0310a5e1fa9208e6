"""Ask every replica now and then whether it is ready; notices what no request has met yet."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from llm_operator.gateway.fleet import Fleet
from llm_operator.gateway.model import Model
from llm_operator.gateway.replica import Health, Replica, Sign
from llm_operator.gateway.settings import Settings

TICK_S: Final = 0.25
PROBES_AT_ONCE: Final = 64


def due_s(replica: Replica, last_s: float, settings: Settings) -> float:
    """Return when a replica wants its next probe: soon where there is doubt."""
    well = replica.health is Health.UP and replica.timeouts == 0
    return last_s + (settings.probe_every_s if well else settings.probe_again_s)


@dataclass
class Prober:
    """Probes the replicas of a fleet, each over a fresh connection, never twice at a time."""

    fleet: Fleet
    settings: Settings
    _last_s: dict[Replica, float] = field(default_factory=dict)
    _running: set[Replica] = field(default_factory=set)

    async def run(self) -> None:
        """Probe until cancelled."""
        # A kept connection would hide that nobody listens any more.
        connector = aiohttp.TCPConnector(force_close=True, limit=PROBES_AT_ONCE)
        limits = aiohttp.ClientTimeout(total=self.settings.probe_timeout_s)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=limits) as session,
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                for model, replica in self._due(asyncio.get_running_loop().time()):
                    self._running.add(replica)
                    tasks.create_task(self._probe(session, model, replica))
                await asyncio.sleep(TICK_S)

    def _due(self, now_s: float) -> list[tuple[Model, Replica]]:
        everyone = [(m, r) for m in self.fleet.models.values() for r in m.replicas.values()]
        # A new replica counts as probed just now: its own readiness probe has only just passed.
        self._last_s = {r: self._last_s.get(r, now_s) for _, r in everyone}
        return [
            (model, replica)
            for model, replica in everyone
            if replica not in self._running
            and due_s(replica, self._last_s[replica], self.settings) <= now_s
        ]

    async def _probe(self, session: aiohttp.ClientSession, model: Model, replica: Replica) -> None:
        try:
            model.observe(replica, await self._ask(session, replica.url))
        finally:
            self._running.discard(replica)
            self._last_s[replica] = asyncio.get_running_loop().time()

    async def _ask(self, session: aiohttp.ClientSession, url: str) -> Sign:
        try:
            async with session.get(url + "/readyz") as response:
                return Sign.READY if response.status == 200 else Sign.NOT_READY
        except TimeoutError:
            return Sign.TIMED_OUT
        except aiohttp.ClientConnectorError:
            return Sign.REFUSED
        except (aiohttp.ClientError, OSError):
            return Sign.TIMED_OUT  # cut off or talking nonsense: in doubt, not gone
