"""What was read from engines and gateways, as plain data. Knows nothing of how it was read.

Times are monotonic seconds of the reader: only their differences mean anything. Every number in a
reading is finite and not negative: who builds one refuses anything else as a whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from llm_operator.scaling.histogram import Histogram

ENGINE_INTERVAL_S: Final = 2.0
GATEWAY_INTERVAL_S: Final = 1.0
SCRAPE_TIMEOUT_S: Final = 2.0
KEPT_S: Final = 90.0
"""Readings older than this are dropped: the longest window is 60 s."""


@dataclass(frozen=True)
class EngineReading:
    """One look at an engine's metrics; counters count from the start of its process.

    incarnation       changes when the process restarts
    tokens_in_flight  prompt and output tokens held by its requests; None: not exported
    steps, step_s     steps that did work and the seconds they took; None: not exported
    inter_token       seconds between two tokens of a stream
    per_token         seconds per output token, averaged over each finished request
    prompts, outputs  tokens of each finished request
    """

    at_s: float
    incarnation: str
    running: float
    waiting: float
    prompt_tokens: float
    output_tokens: float
    first_token: Histogram
    per_token: Histogram
    inter_token: Histogram | None = None
    prompts: Histogram | None = None
    outputs: Histogram | None = None
    steps: float | None = None
    step_s: float | None = None
    tokens_in_flight: float | None = None
    max_concurrency: float | None = None

    @property
    def counters(self) -> tuple[float, ...]:
        """The numbers that only grow while the process lives."""
        grown = (self.prompt_tokens, self.output_tokens, self.first_token.count)
        return (*grown, self.per_token.count, self.steps or 0.0)


@dataclass(frozen=True)
class GatewayReading:
    """One look at a gateway's metrics of one model; `first_token` is what clients saw."""

    at_s: float
    incarnation: str
    arrivals: float
    held: float
    in_flight: float
    first_token: Histogram | None = None

    @property
    def counters(self) -> tuple[float, ...]:
        """The numbers that only grow while the process lives."""
        return (self.arrivals, self.first_token.count if self.first_token else 0.0)


Reading = TypeVar("Reading", EngineReading, GatewayReading)


@dataclass(frozen=True)
class Series(Generic[Reading]):
    """Readings of one target, oldest first; `problem` says why the last attempt gave none."""

    readings: tuple[Reading, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Samples:
    """All readings of one model at one moment, by pod name."""

    taken_at_s: float
    engines: Mapping[str, Series[EngineReading]] = field(default_factory=dict)
    gateways: Mapping[str, Series[GatewayReading]] = field(default_factory=dict)

    @classmethod
    def none(cls) -> "Samples":
        """Return the samples of somebody who has not looked yet."""
        return cls(taken_at_s=0.0)
