"""What is known of the cluster: fed by watches, corrected by lists and by our own writes.

Decisions read only from here, so they cost the API server nothing. It may be behind: a write says
which version it was decided on, and the API server refuses it where that is no longer the newest.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from llm_operator.api import names
from llm_operator.api.served_names import NameClaim, claim_of, name_owners
from llm_operator.cluster.kinds import ACCELERATOR_CLASS, LLM_DEPLOYMENT, Kind
from llm_operator.cluster.work_queue import Key

Json: TypeAlias = dict[str, Any]
_Place: TypeAlias = tuple[str, str, str]  # kind, namespace, name

_TOMBSTONES_KEPT: Final = 10_000


@dataclass
class _Entry:
    """One object; `untold_since_s`: the watch has not yet told of this version."""

    obj: Json
    version: int
    untold_since_s: float | None


class Store:
    """All LLMDeployments, what belongs to them, and all AcceleratorClasses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[_Place, _Entry] = {}
        self._family: dict[Key, set[_Place]] = {}
        self._gone: dict[_Place, int] = {}
        self._owners: dict[str, NameClaim] | None = None

    def told(self, obj: Json) -> Key | None:
        """Take in an object from a watch; return whose it is."""
        return self._put(obj, by_watch=True)

    def written(self, obj: Json) -> None:
        """Take in an object as the API server answered our own request."""
        self._put(obj, by_watch=False)

    def gone(self, obj: Json) -> Key | None:
        """Take in that an object was deleted; return whose it was."""
        place, version = _place(obj), _version(obj)
        self._gone[place] = version
        if len(self._gone) > _TOMBSTONES_KEPT:
            self._gone.pop(next(iter(self._gone)))
        entry = self._entries.get(place)
        if entry and entry.version <= version:
            self._drop(place)
        return key_of(obj)

    def missing(self, kind: Kind, namespace: str | None, name: str) -> None:
        """Take in that a read found no such object."""
        self._drop((kind.name, namespace or "", name))

    def listed(self, kind: Kind, objects: Iterable[Json], version: str) -> None:
        """Take in a complete list of one kind: what is not in it is gone."""
        present = set()
        for obj in objects:
            present.add(_place(obj))
            self._put(obj, by_watch=False)
        limit = int(version) if version.isdigit() else 0
        stale = [
            place
            for place, entry in self._entries.items()
            if place[0] == kind.name and place not in present and entry.version <= limit
        ]
        for place in stale:
            self._drop(place)

    def deployments(self) -> list[Key]:
        """Return every LLMDeployment."""
        return [
            Key(namespace, name)
            for kind, namespace, name in self._entries
            if kind == LLM_DEPLOYMENT.name
        ]

    def deployment(self, key: Key) -> Json | None:
        """Return the LLMDeployment of this key."""
        entry = self._entries.get((LLM_DEPLOYMENT.name, key.namespace, key.name))
        return entry.obj if entry else None

    def family(self, key: Key) -> Iterator[Json]:
        """Yield everything that carries the label of this LLMDeployment."""
        for place in sorted(self._family.get(key, ())):
            yield self._entries[place].obj

    def accelerators(self) -> list[Json]:
        """Return every AcceleratorClass, by name."""
        places = sorted(place for place in self._entries if place[0] == ACCELERATOR_CLASS.name)
        return [self._entries[place].obj for place in places]

    def name_owner(self, served_name: str) -> NameClaim | None:
        """Return who holds a served name."""
        if self._owners is None:
            claims = (claim_of(self._entries[place].obj) for place in self._deployment_places())
            self._owners = name_owners(claim for claim in claims if claim)
        return self._owners.get(served_name)

    def watch_lag_s(self) -> float:
        """Return for how long the watches have owed us something that we know already."""
        untold = [e.untold_since_s for e in self._entries.values() if e.untold_since_s is not None]
        return self._clock() - min(untold) if untold else 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def _deployment_places(self) -> Iterator[_Place]:
        return (place for place in self._entries if place[0] == LLM_DEPLOYMENT.name)

    def _put(self, obj: Json, by_watch: bool) -> Key | None:
        """Keep an object unless a newer one, or a newer deletion, is known."""
        place, version = _place(obj), _version(obj)
        old = self._entries.get(place)
        # Equal is no deletion: the object has only left what the watch selects, and was read since.
        if version < self._gone.get(place, -1):
            return None
        if old and old.version >= version:
            if by_watch and old.version == version:
                old.untold_since_s = None
            return None
        metadata = {k: v for k, v in obj["metadata"].items() if k != "managedFields"}
        untold_since_s = None
        if not by_watch:
            owed = old.untold_since_s if old else None
            untold_since_s = self._clock() if owed is None else owed
        self._entries[place] = _Entry({**obj, "metadata": metadata}, version, untold_since_s)
        key = key_of(obj)
        if place[0] == LLM_DEPLOYMENT.name:
            self._owners = None
        elif key:
            self._family.setdefault(key, set()).add(place)
        return key

    def _drop(self, place: _Place) -> None:
        entry = self._entries.pop(place, None)
        if entry is None:
            return
        self._owners = None
        key = key_of(entry.obj)
        if key and place in self._family.get(key, ()):
            self._family[key].discard(place)
            if not self._family[key]:
                del self._family[key]


def key_of(obj: Json) -> Key | None:
    """Return the LLMDeployment that an object is or belongs to."""
    metadata = obj["metadata"]
    if obj.get("kind") == LLM_DEPLOYMENT.name:
        return Key(metadata["namespace"], metadata["name"])
    name = (metadata.get("labels") or {}).get(names.DEPLOYMENT_LABEL)
    for owner in metadata.get("ownerReferences") or ():  # a label may have been taken off
        if owner.get("kind") == names.DEPLOYMENT_KIND and owner.get("controller"):
            name = owner.get("name")
    return Key(metadata["namespace"], name) if name and metadata.get("namespace") else None


def _place(obj: Json) -> _Place:
    metadata = obj["metadata"]
    return obj["kind"], metadata.get("namespace") or "", metadata["name"]


def _version(obj: Json) -> int:
    """Return the resourceVersion as the number that it is in every API server that we know of."""
    text = str(obj["metadata"].get("resourceVersion") or "")
    return int(text) if text.isdigit() else 0
