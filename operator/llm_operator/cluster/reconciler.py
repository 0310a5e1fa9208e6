"""The loop that moves every LLMDeployment towards its spec: observe, decide, carry out, report."""

import logging
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from llm_operator.api.parsing import parse_metadata
from llm_operator.api.served_names import claim_of
from llm_operator.cluster.carry_out import NameTaken, Stale, Writer
from llm_operator.cluster.election import Election
from llm_operator.cluster.memory import Memory
from llm_operator.cluster.objects import RequestFailed, WriteWithoutLease
from llm_operator.cluster.observe import observe
from llm_operator.cluster.store import Store
from llm_operator.cluster.telemetry import Telemetry
from llm_operator.cluster.work_queue import Key, WorkQueue
from llm_operator.reconcile.decide import decide
from llm_operator.reconcile.decision import Decision
from llm_operator.reconcile.observed import EngineSettings, Observed
from llm_operator.reconcile.trouble import Trouble
from llm_operator.scaling import Samples

log = logging.getLogger(__name__)

Json: TypeAlias = dict[str, Any]

_REJECTED: Final = frozenset({400, 413, 415, 422})


class Reconciler:
    """Takes keys off the queue, one look at a time for each of them.

    samples_of  what is known of the load on an LLMDeployment
    """

    def __init__(
        self,
        store: Store,
        queue: WorkQueue,
        writer: Writer,
        election: Election,
        telemetry: Telemetry,
        settings: EngineSettings,
        samples_of: Callable[[Key], Samples],
    ) -> None:
        self._store = store
        self._queue = queue
        self._writer = writer
        self._election = election
        self._telemetry = telemetry
        self._settings = settings
        self._samples_of = samples_of
        self._memories: dict[Key, Memory] = {}

    def forget_all(self) -> None:
        """Drop all memory: another process has led meanwhile, and status knows what it did."""
        self._memories.clear()

    async def work(self) -> None:
        """Work until cancelled; several may run at once."""
        while True:
            await self._election.won()
            key = await self._queue.take()
            if not self._election.leads:  # lost while waiting for work
                self._queue.failed(key)
                continue
            began_s = time.monotonic()
            try:
                outcome = await self._look(key)
            except Exception:
                log.exception("a look at %s failed", key)
                self._telemetry.errors.labels("bug").inc()
                outcome = "retried"
            if outcome == "retried":
                self._queue.failed(key)
            else:
                self._queue.done(key)
            self._telemetry.reconciles.labels(outcome).inc()
            self._telemetry.reconcile_seconds.observe(time.monotonic() - began_s)

    async def _look(self, key: Key) -> str:
        """Move one LLMDeployment a step; return what came of it."""
        memory = self._memories.setdefault(key, Memory())
        observed = observe(self._store, key, memory, self._samples_of(key))
        if observed is None:
            self._memories.pop(key, None)
            self._queue.forget(key)
            return "rest"
        now_s = time.time()
        decision = decide(observed, self._settings, now_s)
        try:
            await self._carry_out(observed.deployment, decision, memory, now_s)
        except (Stale, WriteWithoutLease) as why:
            log.info("%s is looked at again: %s", key, why)
            self._telemetry.errors.labels("stale").inc()
            return "retried"
        except (RequestFailed, NameTaken) as failure:
            log.warning("acting on %s failed: %s", key, failure)
            kind, memory.obstacle = _obstacle(failure)
            self._telemetry.errors.labels(kind).inc()
            if memory.obstacle and memory.obstacle != observed.obstacle:
                await self._report_obstacle(key, memory)
            return "retried"
        self._measure(observed, decision)
        return "rest" if decision.at_rest else "acted"

    async def _carry_out(
        self, deployment: Json, decision: Decision, memory: Memory, now_s: float
    ) -> None:
        owner = parse_metadata(deployment)
        for action in decision.actions:
            await self._writer.carry_out(owner, action)
        if memory.obstacle:
            memory.obstacle = None  # nothing is refused any more; the next look says so
            self._queue.add(Key(owner.namespace, owner.name))
        if decision.status is not None:
            await self._writer.report(deployment, decision.status)
            memory.reported_s = now_s
        if decision.scaled:
            memory.scaling = decision.scaled.state
        for note in decision.notes if decision.status is not None or decision.actions else ():
            await self._writer.tell(owner, note)

    async def _report_obstacle(self, key: Key, memory: Memory) -> None:
        """Tell the user at once why nothing moves: this status needs none of the actions."""
        observed = observe(self._store, key, memory, self._samples_of(key))
        if observed is None:
            return
        decision = decide(observed, self._settings, time.time())
        owner = parse_metadata(observed.deployment)
        try:
            if decision.status is not None:
                await self._writer.report(observed.deployment, decision.status)
                for note in decision.notes:
                    await self._writer.tell(owner, note)
        except (RequestFailed, Stale, WriteWithoutLease) as failure:
            log.warning("reporting on %s failed: %s", key, failure)

    def _measure(self, observed: Observed, decision: Decision) -> None:
        """Keep the metrics of this model."""
        claim, scaled = claim_of(observed.deployment), decision.scaled
        if claim is None or scaled is None:
            return
        model = claim.served_name
        if scaled.changed and decision.actions:
            self._telemetry.decisions.labels(model, scaled.reason).inc()
        self._telemetry.replicas_wanted.labels(model).set(scaled.replicas)
        ready = sum(pod.ready and not pod.terminating for pod in observed.pods)
        self._telemetry.replicas_ready.labels(model).set(ready)
        if scaled.observed.cost_per_h is not None:
            self._telemetry.cost_per_hour.labels(model).set(float(scaled.observed.cost_per_h))
        if scaled.observed.attainment is not None:
            self._telemetry.attainment_ratio.labels(model).set(scaled.observed.attainment)


def _obstacle(failure: RequestFailed | NameTaken) -> tuple[str, Trouble | None]:
    """Return the kind of a failure, and what to tell the user where only a user can help."""
    if isinstance(failure, NameTaken):
        return "name_taken", Trouble("NameTaken", str(failure))
    if failure.forbidden:
        return "forbidden", Trouble(
            "Forbidden", f"The operator may not do what is needed: {failure.message}"
        )
    if failure.status in _REJECTED:
        return "rejected", Trouble(
            "Rejected", f"The API server refuses {failure.what}: {failure.message}"
        )
    return "unreachable", None
