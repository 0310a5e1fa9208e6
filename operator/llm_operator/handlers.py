"""Kopf entry points: an event only says that an object may need a look. Nothing is decided here."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import kopf

from llm_operator.cluster.kinds import CHILDREN, WATCHED
from llm_operator.cluster.resync import CHILD_SELECTOR
from llm_operator.cluster.store import Store
from llm_operator.cluster.work_queue import WorkQueue

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S: Final = 20.0


@dataclass(frozen=True)
class Wake:
    """What an event is told to: the store first, then the queue."""

    store: Store
    queue: WorkQueue


class EndlessPauses:
    """Pauses between tries of one request, for ever: an API server may be away for hours."""

    def __iter__(self) -> Iterator[float]:
        pause_s = 0.5
        while True:
            yield pause_s * random.uniform(0.5, 1.0)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def registry() -> kopf.OperatorRegistry:
    """Return handlers for the objects that an LLMDeployment depends on; events only."""
    handlers = kopf.OperatorRegistry()
    for kind in WATCHED:
        version = kind.api_version.rpartition("/")[2]
        # No label filter here: the server's tells us too when somebody takes our label off.
        kopf.on.event(kind.group, version, kind.plural, id=kind.plural, registry=handlers)(told)
    kopf.on.login(registry=handlers)(login)
    return handlers


async def told(event: Any, memo: Any, **_: Any) -> None:
    """Take in what a watch tells, and ask for a look at whose it is; many events become one."""
    wake: Wake = memo.wake
    deleted = event["type"] == "DELETED"
    key = (wake.store.gone if deleted else wake.store.told)(dict(event["object"]))
    if key:
        wake.queue.add(key)


def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Log in with the pod's service account, else with the default kubeconfig."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def watch_settings() -> kopf.OperatorSettings:
    """Return settings under which kopf watches and does nothing else."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # needs no right to list namespaces or CRDs
    settings.peering.standalone = True
    settings.watching.server_timeout = 60
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 15
    settings.networking.error_backoffs = EndlessPauses()
    settings.process.ultimate_exiting_timeout = 10
    settings.queueing.exit_timeout = 0.5
    for kind in CHILDREN:
        version = kind.api_version.rpartition("/")[2]
        settings.watching.label_selectors[kind.group, version, kind.plural] = CHILD_SELECTOR
    return settings


async def watch(
    wake: Wake,
    namespaces: tuple[str, ...],
    stop: asyncio.Event,
    take_signals: Callable[[], None],
) -> None:
    """Watch until `stop` is set; returns or raises earlier only when kopf itself gives up.

    take_signals  takes SIGTERM back at once: kopf would end before the Lease is given back
    """
    ours = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=registry(),
        settings=watch_settings(),
        memo=kopf.Memo(wake=wake),
        clusterwide=not namespaces,
        namespaces=namespaces,
        standalone=True,
        stop_flag=stop,
    )
    take_signals()
    await kopf.run_tasks(tasks, ignored=ours)
