"""What this gateway knows of one replica: is it well, and how much work did we give it?"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

TIMEOUTS_TO_SILENCE: Final = 3


class Health(Enum):
    """Whether a replica may get requests."""

    UP = auto()
    SILENT = auto()  # timed out again and again: only where no replica is up
    OUT = auto()  # refused a connection, or said that it is not ready: never


class Sign(Enum):
    """Something seen of a replica, by a probe or by a request."""

    READY = auto()  # its own word; ends any outage
    ALIVE = auto()  # answers a request: not silent, and yet it may be draining
    NOT_READY = auto()  # its own word, too
    REFUSED = auto()  # nobody listens at its address
    TIMED_OUT = auto()


@dataclass(slots=True, eq=False)
class Replica:
    """One engine replica; starts UP, since its readiness probe has passed before we hear of it.

    dispatched_tokens  tokens of the requests that this gateway sent and that have not ended
    """

    url: str
    health: Health = Health.UP
    timeouts: int = 0
    in_flight_requests: int = 0
    dispatched_tokens: int = 0

    @property
    def load_tokens(self) -> int:
        """Outstanding tokens, the measure by which replicas are compared."""
        return self.dispatched_tokens

    def observe(self, sign: Sign) -> bool:
        """Take a sign into account; True when the replica has just become UP.

        A timeout alone never makes a replica OUT: it may only be slow, as all may be.
        """
        before = self.health
        match sign:
            case Sign.READY:
                self.health, self.timeouts = Health.UP, 0
            case Sign.ALIVE if before is not Health.OUT:
                self.health, self.timeouts = Health.UP, 0
            case Sign.NOT_READY | Sign.REFUSED:
                self.health = Health.OUT
            case Sign.TIMED_OUT:
                self.timeouts += 1
                if self.timeouts >= TIMEOUTS_TO_SILENCE and before is Health.UP:
                    self.health = Health.SILENT
        return self.health is Health.UP and before is not Health.UP
