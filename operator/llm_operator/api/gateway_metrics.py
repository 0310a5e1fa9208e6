"""Names of the gateway's metrics. The label `model` is the served name: bounded, never a request.

Counters are named without `_total`, as prometheus-client wants them.
"""

from typing import Final

ARRIVALS: Final = "llm_gateway_arrivals"  # counter: requests received for a known model
REQUESTS: Final = "llm_gateway_requests"  # counter, label outcome: ok client_gone rejected failed
HELD_REQUESTS: Final = "llm_gateway_held_requests"  # gauge: waiting for a ready replica
OLDEST_WAIT_SECONDS: Final = "llm_gateway_oldest_wait_seconds"  # gauge: of the held ones
IN_FLIGHT_REQUESTS: Final = "llm_gateway_in_flight_requests"  # gauge: sent to a replica, not ended
QUEUE_SECONDS: Final = "llm_gateway_queue_seconds"  # histogram: time held
OVERHEAD_SECONDS: Final = (
    "llm_gateway_overhead_seconds"  # histogram: time added by the gateway itself
)
TIME_TO_FIRST_TOKEN_SECONDS: Final = (
    "llm_gateway_time_to_first_token_seconds"  # histogram, as clients see it
)

MODEL_LABEL: Final = "model"
OUTCOME_LABEL: Final = "outcome"
