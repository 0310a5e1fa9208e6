"""One request from its admission to its end, with at most one second try."""

import logging
import time
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from aiohttp import web

from llm_operator.gateway.attempt import Attempt, Call, Failure, ReplicaFailed
from llm_operator.gateway.model import Model
from llm_operator.gateway.refusal import Refusal
from llm_operator.gateway.replica import Sign
from llm_operator.gateway.routing import RetryBudget
from llm_operator.gateway.settings import Settings

log = logging.getLogger(__name__)

SIGNS: Final = {
    Failure.REFUSED: Sign.REFUSED,
    Failure.UNREACHABLE: Sign.TIMED_OUT,
    Failure.UNAVAILABLE: Sign.NOT_READY,
}
"""What a failure says of the replica's health; the others say nothing certain."""

FREE_RETRIES: Final = frozenset({Failure.REFUSED, Failure.UNREACHABLE})
"""The request has reached nobody, so that trying another replica adds no load."""


@dataclass
class Proxy:
    """Forwards requests to replicas over one shared pool of connections."""

    settings: Settings
    session: aiohttp.ClientSession
    budget: RetryBudget = field(default_factory=RetryBudget)
    draining: bool = False

    async def serve(self, call: Call, model: Model) -> web.StreamResponse:
        """Return the answer; raises Refusal while nothing has been sent.

        A replica that fails before the first byte costs one more try, on another replica where
        there is one, held again where there is none. Never after the first byte.
        """
        self.budget.earn()
        avoid = None
        while True:
            asked_s = time.monotonic()
            ticket = await model.admit(call.asked, call.arrived_s, avoid=avoid)
            call.metrics.queue_s.observe(time.monotonic() - asked_s)
            attempt = Attempt(call, ticket.replica, self.session, self.settings, self.draining)
            try:
                return await attempt.run()
            except ReplicaFailed as failed:
                log.warning("%s failed %s: %s", ticket.replica.url, call.request_id, failed)
                if failed.failure in SIGNS:
                    model.observe(ticket.replica, SIGNS[failed.failure])
                if avoid is not None or not self._may_retry(failed.failure):
                    raise _refusal(failed.failure) from failed
                avoid = ticket.replica
            finally:
                ticket.release()

    def _may_retry(self, failure: Failure) -> bool:
        if failure is Failure.SLOW:
            return False  # it may still be at work: a second copy would cost the same again
        return failure in FREE_RETRIES or self.budget.spend()


def _refusal(failure: Failure) -> Refusal:
    if failure is Failure.SLOW:
        return Refusal(504, "first_token_timeout", "The replica did not answer in time.")
    message = "The replica failed before its first token; the request may be sent again."
    return Refusal(503, "replica_failed", message, retry_after_s=1)
