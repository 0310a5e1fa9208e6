"""Lists everything again and again: what a watch has lost is found, whoever lost it."""

import asyncio
import logging
import time
from typing import Final

from llm_operator.api import names
from llm_operator.cluster.kinds import CHILDREN, WATCHED
from llm_operator.cluster.objects import Objects, RequestFailed
from llm_operator.cluster.store import Store

log = logging.getLogger(__name__)

RESYNC_EVERY_S: Final = 30.0
_FIRST_RETRY_S: Final = 5.0
CHILD_SELECTOR: Final = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"


class Resync:
    """Keeps the store complete by lists.

    namespaces  those that are looked at; empty: all
    """

    def __init__(self, objects: Objects, store: Store, namespaces: tuple[str, ...] = ()) -> None:
        self._objects = objects
        self._store = store
        self._namespaces = namespaces
        self.complete = asyncio.Event()
        """Set once everything has been listed."""
        self.last_try_s = time.monotonic()
        """When a round last ended, well or not, on the monotonic clock."""

    async def run(self) -> None:
        """List until cancelled."""
        while True:
            try:
                await self._round()
                self.complete.set()
            except RequestFailed as failure:
                log.warning("%s", _in_words(failure))
            self.last_try_s = time.monotonic()
            await asyncio.sleep(RESYNC_EVERY_S if self.complete.is_set() else _FIRST_RETRY_S)

    async def _round(self) -> None:
        for kind in WATCHED:
            selector = CHILD_SELECTOR if kind in CHILDREN else None
            # One list replaces all that is known of a kind, so several namespaces come as one.
            places = self._namespaces if self._namespaces and kind.namespaced else (None,)
            objects, oldest = [], None
            for namespace in places:
                found, version = await self._objects.list(kind, namespace, selector)
                objects += found
                oldest = oldest or version
            self._store.listed(kind, objects, oldest or "")


def _in_words(failure: RequestFailed) -> str:
    if failure.status == 404 and names.GROUP in failure.what:
        return (
            f"the custom resources of {names.GROUP} are not installed; waiting for them:"
            " install the chart, or `kubectl apply -f crds/`"
        )
    return f"listing failed, it is tried again: {failure}"
