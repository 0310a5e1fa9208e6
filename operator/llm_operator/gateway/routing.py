"""Which replica gets a request, and whether a failed one may be tried again; pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from llm_operator.gateway.replica import Health, Replica


class Wait(Enum):
    """Why no replica can be chosen now."""

    NO_REPLICA = auto()
    BUSY = auto()


def pick(
    replicas: Iterable[Replica], limit: int, *, turn: int, avoid: Replica | None = None
) -> Replica | Wait:
    """Return the replica with the least outstanding tokens, or why to wait.

    Silent replicas count only where none is up, so that timeouts alone never empty the choice.

    limit  most requests in flight on one replica
    turn   a counter that spreads equals, so that idle gateways do not all choose the first
    avoid  a replica that has just failed this request: the last choice, not a forbidden one
    """
    everyone = list(replicas)
    for health in (Health.UP, Health.SILENT):
        usable = [replica for replica in everyone if replica.health is health]
        if not usable:
            continue
        free = [replica for replica in usable if replica.in_flight_requests < limit]
        if not free:
            return Wait.BUSY
        others = [replica for replica in free if replica is not avoid] or free
        least = min(replica.load_tokens for replica in others)
        equals = [replica for replica in others if replica.load_tokens == least]
        return equals[turn % len(equals)]
    return Wait.NO_REPLICA


@dataclass(slots=True)
class RetryBudget:
    """Keeps retries to a share of recent requests, so that they never multiply an overload.

    share     retries earned by each request
    most      most that can be saved up: what a sudden failure may cost
    """

    share: float = 0.1
    most: float = 20.0
    saved: float = 20.0

    def earn(self) -> None:
        """Count one request."""
        self.saved = min(self.saved + self.share, self.most)

    def spend(self) -> bool:
        """Take one retry out of the budget; False when there is none left."""
        if self.saved < 1.0:
            return False
        self.saved -= 1.0
        return True
