"""One served model: its replicas, the requests it holds, and who goes where."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from llm_operator.gateway.asked import Asked
from llm_operator.gateway.holding import Held, Line
from llm_operator.gateway.refusal import Refusal
from llm_operator.gateway.replica import Replica, Sign
from llm_operator.gateway.routing import Wait, pick
from llm_operator.gateway.settings import Settings

COLD_RETRY_AFTER_S: Final = 10
BUSY_RETRY_AFTER_S: Final = 1


@dataclass(eq=False)
class Ticket:
    """A request's place on a replica, taken until `release`."""

    model: "Model"
    replica: Replica
    tokens: int
    taken: bool = True

    def release(self) -> None:
        """Give the place back and let the next held request have it."""
        if not self.taken:
            return
        self.taken = False
        self.replica.in_flight_requests -= 1
        self.replica.dispatched_tokens -= self.tokens
        self.model.in_flight_requests -= 1
        self.model.dispatch_held()


@dataclass(frozen=True)
class Waiter:
    """Who waits in the line, and what wakes it."""

    asked: Asked
    avoid: Replica | None
    ticket: asyncio.Future[Ticket]


@dataclass(eq=False)
class Model:
    """A model name with its replicas; holds requests while none of them can take one.

    created_s  Unix time of the LLMDeployment's creation
    turn       counts picks; starts anywhere, so that gateways do not choose in step
    """

    name: str
    created_s: int
    settings: Settings
    now_s: Callable[[], float]
    turn: int = 0
    replicas: dict[str, Replica] = field(default_factory=dict)
    in_flight_requests: int = 0
    line: Line[Waiter] = field(init=False)

    def __post_init__(self) -> None:
        self.line = Line(self.settings.held_requests, self.settings.held_bytes)

    async def admit(self, asked: Asked, since_s: float, *, avoid: Replica | None = None) -> Ticket:
        """Wait for a place on a replica; the caller releases the ticket.

        since_s  when the request came; its deadline counts from there
        avoid    the replica that failed this request just now: it goes to the front of the line
        Raises Refusal when the line is full, the deadline passes or the model is deleted.
        """
        choice = self._choose(avoid)
        if isinstance(choice, Replica) and (not self.line or avoid is not None):
            return self._take(choice, asked)
        waiter = Waiter(asked, avoid, asyncio.get_running_loop().create_future())
        held = Held(waiter, asked.body_bytes, since_s)
        if avoid is not None:
            self.line.rejoin(held)
        elif not self.line.join(held):
            raise self._refusal("too many requests wait already")
        wait_s = self.settings.busy_wait_s
        if choice is Wait.NO_REPLICA:
            wait_s = self.settings.cold_start_s
        return await self._wait(held, since_s + wait_s)

    def observe(self, replica: Replica, sign: Sign) -> None:
        """Take in a sign of a replica's health; held requests go when it has come back."""
        if replica.observe(sign):
            self.dispatch_held()

    def set_replicas(self, urls: Iterable[str]) -> None:
        """Make these the replicas; those that stay keep their health and load."""
        self.replicas = {url: self.replicas.get(url) or Replica(url) for url in urls}
        self.dispatch_held()

    def dispatch_held(self) -> None:
        """Give places to held requests, the first of the line first, while there are any."""
        while (held := self.line.first()) is not None:
            choice = self._choose(held.waiter.avoid)
            if not isinstance(choice, Replica):
                return
            self.line.leave(held)
            if not held.waiter.ticket.done():
                held.waiter.ticket.set_result(self._take(choice, held.waiter.asked))

    def refuse_held(self, refusal: Refusal) -> None:
        """Refuse all held requests at once."""
        for held in list(self.line):
            self.line.leave(held)
            if not held.waiter.ticket.done():
                held.waiter.ticket.set_exception(refusal)

    async def _wait(self, held: Held[Waiter], deadline_s: float) -> Ticket:
        ticket = held.waiter.ticket
        try:
            await asyncio.wait([ticket], timeout=max(0.0, deadline_s - self.now_s()))
        except asyncio.CancelledError:
            # The client went away just as its turn came: the place is for another.
            if ticket.done() and not ticket.cancelled() and ticket.exception() is None:
                ticket.result().release()
            raise
        finally:
            self.line.leave(held)
        if ticket.done():
            return ticket.result()
        raise self._refusal("none became free in time")

    def _choose(self, avoid: Replica | None) -> Replica | Wait:
        return pick(
            self.replicas.values(), self.settings.replica_requests, turn=self.turn, avoid=avoid
        )

    def _take(self, replica: Replica, asked: Asked) -> Ticket:
        self.turn += 1
        replica.in_flight_requests += 1
        replica.dispatched_tokens += asked.tokens
        self.in_flight_requests += 1
        return Ticket(self, replica, asked.tokens)

    def _refusal(self, detail: str) -> Refusal:
        """Say busy (429) where there are replicas and unavailable (503) where there are none."""
        if self._choose(None) is Wait.NO_REPLICA:
            message = f"The model {self.name!r} has no ready replica and {detail}."
            return Refusal(503, "model_not_ready", message, retry_after_s=COLD_RETRY_AFTER_S)
        message = f"All replicas of the model {self.name!r} are busy and {detail}."
        return Refusal(429, "model_busy", message, retry_after_s=BUSY_RETRY_AFTER_S)
