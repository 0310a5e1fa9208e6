"""Every write the operator makes for an LLMDeployment: actions, status, Events."""

import logging
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from llm_operator.api import names
from llm_operator.api.parsing import Metadata
from llm_operator.cluster.kinds import DEPLOYMENT, EVENT, LLM_DEPLOYMENT, POD, Kind, kind_of
from llm_operator.cluster.objects import Objects, RequestFailed
from llm_operator.cluster.store import Store
from llm_operator.reconcile.decision import Action, Apply, Delete, Scale, SetDeletionCost
from llm_operator.reconcile.drift import fingerprint
from llm_operator.reconcile.identity import owned_by
from llm_operator.reconcile.notes import Note

log = logging.getLogger(__name__)

Json: TypeAlias = dict[str, Any]

_NOTE_LENGTH: Final = 1024  # what events.k8s.io allows
_REPORTER: Final = "llm-operator.dev/operator"


class Stale(Exception):
    """The decision was taken on something that has changed; a fresh look is due."""


class NameTaken(Exception):
    """An object of ours would have the name of one that belongs to somebody else."""


class Writer:
    """Carries out decisions, and tells the store at once what has become of each object."""

    def __init__(self, objects: Objects, store: Store, identity: str) -> None:
        self._objects = objects
        self._store = store
        self._identity = identity

    async def carry_out(self, owner: Metadata, action: Action) -> None:
        """Do one action.

        Raises Stale when the world has moved on, NameTaken, or RequestFailed.
        """
        log.info("%s", action, extra={"deployment": f"{owner.namespace}/{owner.name}"})
        try:
            match action:
                case Apply():
                    await self._apply(owner, action)
                case Delete():
                    await self._delete(action)
                case Scale():
                    await self._scale(action)
                case SetDeletionCost():
                    await self._set_deletion_cost(owner, action)
        except RequestFailed as failure:
            if failure.conflict:
                await self._refresh(action)
                raise Stale(str(failure)) from failure
            raise

    async def _apply(self, owner: Metadata, action: Apply) -> None:
        manifest, metadata = action.manifest, action.manifest["metadata"]
        if action.over is None:
            await self._look_before_creating(owner, manifest)
        else:
            guard = {key: action.over["metadata"][key] for key in ("uid", "resourceVersion")}
            manifest = {**manifest, "metadata": {**metadata, **guard}}
        self._store.written(await self._objects.apply(manifest))

    async def _look_before_creating(self, owner: Metadata, manifest: Json) -> None:
        """Make sure that an apply creates: what we have not seen may be there all the same."""
        metadata = manifest["metadata"]
        found = await self._objects.get(kind_of(manifest), metadata["namespace"], metadata["name"])
        if found is None:
            return
        if owned_by(found, owner.uid) or found["metadata"].get("deletionTimestamp"):
            labels = found["metadata"].get("labels") or {}
            if labels.get(names.DEPLOYMENT_LABEL) == owner.name:
                self._store.written(found)
                raise Stale(f"{manifest['kind']} {metadata['name']} is there already")
            if owned_by(found, owner.uid):
                return  # somebody took our label off: the apply puts it back
        raise NameTaken(
            f"{manifest['kind']} {metadata['name']} belongs to somebody else: delete or rename it,"
            " or give this LLMDeployment another name."
        )

    async def _delete(self, action: Delete) -> None:
        metadata = action.seen["metadata"]
        kind = kind_of(action.seen)
        await self._objects.delete(
            kind,
            metadata["namespace"],
            metadata["name"],
            metadata["uid"],
            metadata["resourceVersion"],
        )
        self._store.missing(kind, metadata["namespace"], metadata["name"])

    async def _scale(self, action: Scale) -> None:
        metadata = action.seen["metadata"]
        body = {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {key: metadata[key] for key in ("name", "namespace", "uid")},
            "spec": {"replicas": action.replicas},
        }
        await self._objects.apply(body, kind=DEPLOYMENT, subresource="scale")
        await self._read(DEPLOYMENT, metadata["namespace"], metadata["name"])

    async def _set_deletion_cost(self, owner: Metadata, action: SetDeletionCost) -> None:
        body = {
            "apiVersion": POD.api_version,
            "kind": POD.name,
            "metadata": {
                "name": action.pod,
                "namespace": owner.namespace,
                "uid": action.uid,
                "annotations": {names.POD_DELETION_COST_ANNOTATION: str(action.cost)},
            },
        }
        self._store.written(await self._objects.apply(body))

    async def _refresh(self, action: Action) -> None:
        """Read again what a conflict has shown to be out of date."""
        if isinstance(action, SetDeletionCost):
            return  # the pod is gone or another one: its own events tell
        seen = action.manifest if isinstance(action, Apply) else action.seen
        await self._read(kind_of(seen), seen["metadata"]["namespace"], seen["metadata"]["name"])

    async def _read(self, kind: Kind, namespace: str, name: str) -> None:
        """Read one object into the store."""
        fresh = await self._objects.get(kind, namespace, name)
        if fresh:
            self._store.written(fresh)
        else:
            self._store.missing(kind, namespace, name)

    async def report(self, seen: Json, status: Json) -> None:
        """Write the status of an LLMDeployment as it was seen.

        Raises Stale where it has changed meanwhile, is another one of the same name, or gone.
        """
        metadata = seen["metadata"]
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.DEPLOYMENT_KIND,
            # The uid alone would not do: for a status the API server does not compare it.
            "metadata": {
                key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")
            },
            "status": status,
        }
        try:
            written = await self._objects.apply(body, subresource="status")
        except RequestFailed as failure:
            if failure.status in (404, 409):
                await self._read(LLM_DEPLOYMENT, metadata["namespace"], metadata["name"])
                raise Stale(str(failure)) from failure
            raise
        self._store.written(written)

    async def tell(self, owner: Metadata, note: Note) -> None:
        """Record an Event; one that cannot be recorded costs a log line, never the work.

        Its name follows from what it says, so the same Event is never recorded twice.
        """
        now = datetime.now(UTC)
        mark = fingerprint([owner.uid, owner.generation, note.reason.value, note.message])
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.name,
            # To the minute: what comes again later is worth telling again.
            "metadata": {
                "name": f"{owner.name}.{mark}.{now:%Y%m%d%H%M}",
                "namespace": owner.namespace,
            },
            "eventTime": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "reportingController": _REPORTER,
            "reportingInstance": self._identity,
            "action": "Reconcile",
            "type": note.type,
            "reason": note.reason.value,
            "note": note.message[:_NOTE_LENGTH],
            "regarding": {
                "apiVersion": names.API_VERSION,
                "kind": names.DEPLOYMENT_KIND,
                "name": owner.name,
                "namespace": owner.namespace,
                "uid": owner.uid,
            },
        }
        try:
            await self._objects.create(event)
        except RequestFailed as failure:
            if not failure.conflict:
                log.warning("cannot record an Event: %s", failure)
