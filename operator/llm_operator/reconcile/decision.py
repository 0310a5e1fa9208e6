"""What is to be done: actions in order, the status to report, the notes to tell users."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from llm_operator.reconcile.notes import Note
from llm_operator.scaling import ScalingDecision

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Apply:
    """Apply a manifest server-side.

    over  the object it was decided on, which must not have changed since; None: it must not exist
    """

    manifest: Json
    over: Json | None

    def __str__(self) -> str:
        return f"apply {self.manifest['kind']} {self.manifest['metadata']['name']}"


@dataclass(frozen=True)
class Delete:
    """Delete an object, if it still is as it was seen."""

    seen: Json

    def __str__(self) -> str:
        return f"delete {self.seen['kind']} {self.seen['metadata']['name']}"


@dataclass(frozen=True)
class Scale:
    """Set the replicas of a Deployment and nothing else of it."""

    seen: Json
    replicas: int

    def __str__(self) -> str:
        return f"scale {self.seen['kind']} {self.seen['metadata']['name']} to {self.replicas}"


@dataclass(frozen=True)
class SetDeletionCost:
    """Tell the ReplicaSet controller which pod to take first: the one that costs least."""

    pod: str
    uid: str
    cost: int

    def __str__(self) -> str:
        return f"set deletion cost {self.cost} on pod {self.pod}"


Action: TypeAlias = Apply | Delete | Scale | SetDeletionCost


@dataclass(frozen=True)
class Decision:
    """The next step for one LLMDeployment.

    status  the whole status to report; None: it is as it should be, write nothing
    scaled  what the scaling law said; None: it was not asked
    """

    actions: tuple[Action, ...] = ()
    status: Json | None = None
    notes: tuple[Note, ...] = ()
    scaled: ScalingDecision | None = field(default=None, compare=False)

    @property
    def at_rest(self) -> bool:
        """Nothing to do and nothing to say."""
        return not self.actions and self.status is None
