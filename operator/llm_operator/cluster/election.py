"""Who acts: one process holds a Lease; the others watch and wait.

Written anew, for `kubernetes.aio.leaderelection` compares wall clocks, has no deadline for its
own requests and never gives the Lease back. Here all waiting is on the monotonic clock, and a
holder that was paused knows it has lost the Lease before it asks anybody.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from llm_operator.cluster.kinds import LEASE
from llm_operator.cluster.objects import Objects, RequestFailed

log = logging.getLogger(__name__)

Json: TypeAlias = dict[str, Any]

LEASE_NAME: Final = "llm-operator"


@dataclass(frozen=True)
class ElectionTiming:
    """How long a Lease lasts, until when its holder trusts in it, how often it renews it."""

    lease_s: float = 15.0
    trust_s: float = 10.0
    retry_s: float = 2.0


@dataclass
class _Rival:
    """The Lease as last seen, and since when it has not changed."""

    version: str
    since_s: float


class Election:
    """A claim on the Lease.

    objects   must not ask for leave to write: this is what gives it
    identity  of this process: never used twice
    """

    def __init__(
        self,
        objects: Objects,
        namespace: str,
        identity: str,
        timing: ElectionTiming = ElectionTiming(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects = objects
        self._namespace = namespace
        self._identity = identity
        self._timing = timing
        self._clock = clock
        self._trusted_until_s = float("-inf")
        self._held: Json | None = None
        self._rival: _Rival | None = None
        self._won = asyncio.Event()
        self.last_try_s = clock()
        """When an attempt last ended, on the monotonic clock."""

    @property
    def leads(self) -> bool:
        """Whether this process may write, now."""
        return self._clock() < self._trusted_until_s

    async def won(self) -> None:
        """Return as soon as this process leads."""
        while not self.leads:
            self._won.clear()
            await self._won.wait()

    async def run(self) -> None:
        """Take and keep the Lease until cancelled, then give it back."""
        try:
            while True:
                led = self.leads
                await self.attempt()
                if led != self.leads:
                    log.info("this process %s", "leads" if self.leads else "leads no more")
                if self.leads:
                    self._won.set()
                await asyncio.sleep(self._timing.retry_s)
        finally:
            await self._give_back()

    async def attempt(self) -> None:
        """Take or renew the Lease once; whatever goes wrong, it only is not taken."""
        began_s = self._clock()
        try:
            async with asyncio.timeout(self._timing.trust_s / 2):
                if await self._take_or_renew():
                    # Counted from before the request: the Lease may be as old as that.
                    self._trusted_until_s = began_s + self._timing.trust_s
        except (RequestFailed, TimeoutError) as error:
            log.warning("cannot take or renew the lease: %s", error or "timed out")
        self.last_try_s = self._clock()

    async def _take_or_renew(self) -> bool:
        """Write the Lease, on the version that was read or written last; True: it is ours."""
        lease, self._held = self._held, None  # read anew unless this attempt succeeds
        if lease is None:
            lease = await self._objects.get(LEASE, self._namespace, LEASE_NAME)
        try:
            if lease is None:
                self._held = await self._objects.create(self._claim(None))
            elif self._is_free(lease):
                self._held = await self._objects.replace(self._claim(lease))
        except RequestFailed as failure:
            if not failure.conflict and failure.status != 404:
                raise
            log.info("another process has written the lease first")
        if self._held is None:
            self._trusted_until_s = float("-inf")
        return self._held is not None

    def _is_free(self, lease: Json) -> bool:
        """Tell whether the Lease is ours, given back, or has not been renewed for its time."""
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity")
        if not holder or holder == self._identity:
            return True
        version = lease["metadata"]["resourceVersion"]
        if self._rival is None or self._rival.version != version:
            self._rival = _Rival(version, self._clock())
            return False
        lasts_s = max(float(spec.get("leaseDurationSeconds") or 0), self._timing.lease_s)
        return self._clock() - self._rival.since_s > lasts_s

    def _claim(self, lease: Json | None, holder: str | None = None) -> Json:
        """Return the Lease with us, or nobody, as its holder."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        old: Json = (lease or {}).get("spec") or {}
        held = lease is None or old.get("holderIdentity") == self._identity
        holder = self._identity if holder is None else holder
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": {
                "name": LEASE_NAME,
                "namespace": self._namespace,
                # The version makes two claims at once a conflict for one of them.
                **({"resourceVersion": lease["metadata"]["resourceVersion"]} if lease else {}),
            },
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": int(self._timing.lease_s) if holder else 1,
                "acquireTime": old.get("acquireTime", now) if held else now,
                "renewTime": now,
                "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if held else 1),
            },
        }

    async def _give_back(self) -> None:
        """Let a successor begin at once instead of after the Lease's time."""
        if not self.leads:
            return
        self._trusted_until_s = float("-inf")
        try:
            async with asyncio.timeout(self._timing.retry_s):
                lease = await self._objects.get(LEASE, self._namespace, LEASE_NAME)
                held = (lease or {}).get("spec", {}).get("holderIdentity") == self._identity
                if lease and held:
                    await self._objects.replace(self._claim(lease, holder=""))
                    log.info("the lease is given back")
        except (RequestFailed, TimeoutError) as error:
            log.warning("cannot give the lease back, it runs out by itself: %s", error)
