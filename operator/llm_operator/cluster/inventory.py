"""Keeps the status of every AcceleratorClass: what of it the cluster has, and what is free."""

import asyncio
import logging
import time
from collections import defaultdict
from typing import Any, Final, TypeAlias

from llm_operator.api.parsing import InvalidObject, parse_accelerator_class
from llm_operator.cluster.election import Election
from llm_operator.cluster.kinds import NODE, POD
from llm_operator.cluster.objects import Objects, RequestFailed, WriteWithoutLease
from llm_operator.cluster.store import Store
from llm_operator.planner.inventory import Node, count_nodes

log = logging.getLogger(__name__)

Json: TypeAlias = dict[str, Any]

COUNT_EVERY_S: Final = 30.0


class Inventory:
    """Counts nodes, while this process leads."""

    def __init__(self, objects: Objects, store: Store, election: Election) -> None:
        self._objects = objects
        self._store = store
        self._election = election
        self.last_try_s = time.monotonic()
        """When a round last ended, well or not, on the monotonic clock."""

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            if self._election.leads and self._store.accelerators():
                try:
                    await self._count()
                except (RequestFailed, WriteWithoutLease) as failure:
                    log.warning("counting accelerators failed, it is tried again: %s", failure)
            self.last_try_s = time.monotonic()
            pause_s = COUNT_EVERY_S if self._election.leads else 1.0
            await asyncio.sleep(pause_s)

    async def _count(self) -> None:
        raw_nodes, _ = await self._objects.list(NODE)
        by_node = defaultdict(list)
        # All pods, not only ours: what others have taken is not free.
        for pod in (await self._objects.list(POD))[0]:
            by_node[(pod.get("spec") or {}).get("nodeName")].append(pod)
        nodes = [Node.of(raw, by_node[raw["metadata"]["name"]]) for raw in raw_nodes]
        for raw in self._store.accelerators():
            try:
                spec = parse_accelerator_class(raw).spec
            except InvalidObject as problem:
                log.warning("AcceleratorClass %s: %s", raw["metadata"]["name"], problem)
                continue
            status = count_nodes(spec, nodes).to_wire()
            if status != (raw.get("status") or {}):
                await self._report(raw, status)

    async def _report(self, raw: Json, status: Json) -> None:
        body = {
            "apiVersion": raw["apiVersion"],
            "kind": raw["kind"],
            "metadata": {key: raw["metadata"][key] for key in ("name", "uid")},
            "status": status,
        }
        self._store.written(await self._objects.apply(body, subresource="status"))
