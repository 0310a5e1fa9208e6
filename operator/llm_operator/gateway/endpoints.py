"""From LLMDeployments and EndpointSlices, as watched, to models and replica addresses; pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar

from llm_operator.api.names import DEPLOYMENT_LABEL, ENGINE_PORT_NAME
from llm_operator.api.served_names import NameClaim, claim_of, name_owners
from llm_operator.cluster.watch import Changed, Deleted, Event, Snapshot
from llm_operator.gateway.fleet import Served

Json: TypeAlias = Mapping[str, Any]
Key: TypeAlias = tuple[str, str]  # namespace, name
Part = TypeVar("Part")


@dataclass(frozen=True)
class Slice:
    """The ready endpoints of one EndpointSlice, and the LLMDeployment they belong to."""

    deployment: Key
    urls: tuple[str, ...]


def slice_of(endpoint_slice: Json) -> Slice | None:
    """Return the usable endpoints of a raw EndpointSlice; None where it is not one of ours.

    Usable is ready and not terminating: a replica that drains gets no new request. A condition
    that is missing counts as ready, as the API says.
    """
    metadata = endpoint_slice["metadata"]
    name = (metadata.get("labels") or {}).get(DEPLOYMENT_LABEL)
    ports = endpoint_slice.get("ports") or ()
    port = next((p.get("port") for p in ports if p.get("name") == ENGINE_PORT_NAME), None)
    if not name or not port:
        return None
    urls = [
        f"http://{_host(address)}:{port}"
        for endpoint in endpoint_slice.get("endpoints") or ()
        if _usable(endpoint.get("conditions") or {})
        for address in (endpoint.get("addresses") or ())[
            :1
        ]  # all addresses of one endpoint are equal
    ]
    return Slice((metadata["namespace"], name), tuple(urls))


def _usable(conditions: Json) -> bool:
    return conditions.get("ready") is not False and conditions.get("terminating") is not True


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@dataclass
class Kept(Generic[Part]):
    """The part we need of every object of one kind, kept in step with a watch."""

    part_of: Callable[[Json], Part | None]
    parts: dict[Key, Part] = field(default_factory=dict)
    listed: bool = False

    def see(self, event: Event) -> None:
        """Take in an event; a snapshot replaces everything known before."""
        match event:
            case Snapshot(objects):
                self.parts = {}
                for obj in objects:
                    self._put(obj)
                self.listed = True
            case Changed(obj):
                self._put(obj)
            case Deleted(obj):
                self.parts.pop(_key(obj), None)

    def _put(self, obj: Json) -> None:
        part = self.part_of(obj)
        if part is None:
            self.parts.pop(_key(obj), None)
        else:
            self.parts[_key(obj)] = part


def _key(obj: Json) -> Key:
    return obj["metadata"].get("namespace") or "", obj["metadata"]["name"]


@dataclass
class ClusterView:
    """The last known state of the cluster; stays as it is while the API server is away."""

    deployments: Kept[NameClaim] = field(default_factory=lambda: Kept(claim_of))
    slices: Kept[Slice] = field(default_factory=lambda: Kept(slice_of))

    @property
    def complete(self) -> bool:
        """True once both kinds have been listed: before, nothing can be said to be missing."""
        return self.deployments.listed and self.slices.listed

    def served(self) -> dict[str, Served]:
        """Return every model by its served name, with the addresses of its ready replicas."""
        urls: dict[Key, set[str]] = {}
        for part in self.slices.parts.values():
            urls.setdefault(part.deployment, set()).update(part.urls)
        owners = name_owners(self.deployments.parts.values())
        return {
            served_name: Served(
                created_s=_unix_s(claim.created),
                urls=tuple(sorted(urls.get((claim.namespace, claim.name), ()))),
            )
            for served_name, claim in owners.items()
        }


def _unix_s(created: str) -> int:
    return int(datetime.fromisoformat(created).timestamp()) if created else 0
