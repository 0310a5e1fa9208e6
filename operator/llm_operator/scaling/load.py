"""The load on one model, summed over the samples of its engines and of all gateways.

A target without trustworthy data adds nothing here and is named in `gaps`: absence is never zero.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from llm_operator.scaling.gaps import Gap, trusted
from llm_operator.scaling.histogram import Histogram, merged
from llm_operator.scaling.samples import (
    ENGINE_INTERVAL_S,
    GATEWAY_INTERVAL_S,
    EngineReading,
    GatewayReading,
    Samples,
)
from llm_operator.scaling.window import Stretch

WINDOWS_S: Final = (10.0, 20.0, 30.0, 60.0)
"""Arrivals are counted over each: the short ones see a burst, the longest knows the mean."""

LEAST_RATE_S: Final = 5.0
"""A series of fewer seconds is divided by this many."""

RECENT_S: Final = 12.0
GUARD_S: Final = 30.0
MINUTE_S: Final = 60.0


@dataclass(frozen=True)
class Replica:
    """One engine pod as the Kubernetes API shows it; its name is the key of its samples."""

    name: str
    ready: bool
    terminating: bool = False


@dataclass(frozen=True)
class Arrivals:
    """Requests that arrived at all gateways within a window."""

    window_s: float
    count: float
    per_s: float


@dataclass(frozen=True)
class Work:
    """What engines did between two readings: the steps they took, their tokens and seconds."""

    age_s: float
    steps: float
    prompt_tokens: float
    output_tokens: float
    step_s: float


@dataclass(frozen=True)
class Load:
    """Everything the scaling law looks at. Counts are requests, rates are per second.

    ordered       replicas asked of Kubernetes; None: nothing ordered yet
    started_per_s requests whose first token engines gave over the last minute
    seen_first_token, seen_per_token        last minute, first tokens as clients saw them if known
    guard_first_token, guard_per_token      last 30 s, as the engines saw them
    recent_first_token, recent_inter_token  last 12 s
    prompts, outputs  tokens of the requests that finished within the last minute
    emptiest_first    replicas that may go, those with least work first
    """

    ordered: int | None
    ready: int = 0
    starting: int = 0
    terminating: int = 0
    running: float = 0.0
    waiting: float = 0.0
    held: float = 0.0
    in_flight: float = 0.0
    arrivals: tuple[Arrivals, ...] = ()
    started_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    work: tuple[Work, ...] = ()
    seen_first_token: Histogram | None = None
    seen_per_token: Histogram | None = None
    guard_first_token: Histogram | None = None
    guard_per_token: Histogram | None = None
    recent_first_token: Histogram | None = None
    recent_inter_token: Histogram | None = None
    prompts: Histogram | None = None
    outputs: Histogram | None = None
    max_concurrency: float | None = None
    emptiest_first: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    known: bool = False

    @property
    def minute_per_s(self) -> float:
        """Requests per second of the last minute; engines may be asked without a gateway."""
        return max(self.started_per_s, *(seen.per_s for seen in self.arrivals[-1:]), 0.0)

    @property
    def existing(self) -> int:
        """Pods that exist and cost money."""
        return self.ready + self.starting + self.terminating

    @property
    def complete(self) -> bool:
        """Whether every ready replica and every gateway has trustworthy data."""
        return self.known and not self.gaps

    @property
    def active(self) -> bool:
        """Whether anybody uses the model, as far as the data go."""
        busy = self.running + self.waiting + self.held + self.in_flight > 0
        return busy or any(seen.count > 0 for seen in self.arrivals[:1])


def load_of(replicas: Sequence[Replica], ordered: int | None, samples: Samples) -> Load:
    """Sum the samples up; replicas that are terminating or not ready need none.

    ordered  Deployment.spec.replicas as observed; None where there is no Deployment
    """
    now_s = samples.taken_at_s
    staying = [replica for replica in replicas if not replica.terminating]
    ready = [replica.name for replica in staying if replica.ready]
    engines, gaps = trusted(ready, samples.engines, now_s, ENGINE_INTERVAL_S)
    names = sorted(samples.gateways)
    gateways, gateway_gaps = trusted(names, samples.gateways, now_s, GATEWAY_INTERVAL_S)
    gaps += gateway_gaps
    if not names:
        gaps.append(Gap("gateways", "NoGateway", "no gateway is known, so nobody counts demand"))
    load = Load(
        ordered=ordered,
        ready=len(ready),
        starting=len(staying) - len(ready),
        terminating=len(replicas) - len(staying),
        emptiest_first=_emptiest_first(staying, engines),
        gaps=tuple(gaps),
        known=bool(engines or gateways),
    )
    load = _with_engines(load, list(engines.values()), now_s)
    return _with_gateways(load, list(gateways.values()), now_s)


def _with_engines(load: Load, engines: list[Stretch[EngineReading]], now_s: float) -> Load:
    """Add what the engines say."""
    minute = [stretch.within(now_s - MINUTE_S) for stretch in engines]
    guard = [stretch.within(now_s - GUARD_S) for stretch in engines]
    recent = [stretch.within(now_s - RECENT_S) for stretch in engines]
    limits = [s.last.max_concurrency for s in engines if s.last.max_concurrency is not None]
    return replace(
        load,
        running=sum(stretch.last.running for stretch in engines),
        waiting=sum(stretch.last.waiting for stretch in engines),
        started_per_s=sum(s.last.first_token.count - s.first.first_token.count for s in minute)
        / _common_s(minute),
        output_tokens_per_s=sum(s.last.output_tokens - s.first.output_tokens for s in minute)
        / _common_s(minute),
        work=tuple(work for stretch in minute for work in _work(stretch, now_s)),
        seen_first_token=_seen((s.first.first_token, s.last.first_token) for s in minute),
        seen_per_token=_seen((s.first.per_token, s.last.per_token) for s in minute),
        guard_first_token=_seen((s.first.first_token, s.last.first_token) for s in guard),
        guard_per_token=_seen((s.first.per_token, s.last.per_token) for s in guard),
        recent_first_token=_seen((s.first.first_token, s.last.first_token) for s in recent),
        recent_inter_token=_seen((s.first.inter_token, s.last.inter_token) for s in recent),
        prompts=_seen((s.first.prompts, s.last.prompts) for s in minute),
        outputs=_seen((s.first.outputs, s.last.outputs) for s in minute),
        max_concurrency=min(limits, default=None),
    )


def _with_gateways(load: Load, gateways: list[Stretch[GatewayReading]], now_s: float) -> Load:
    """Add what the gateways say; clients' first tokens go before the engines'."""
    minute = [stretch.within(now_s - MINUTE_S) for stretch in gateways]
    clients = _seen((s.first.first_token, s.last.first_token) for s in minute)
    return replace(
        load,
        held=sum(stretch.last.held for stretch in gateways),
        in_flight=sum(stretch.last.in_flight for stretch in gateways),
        arrivals=tuple(_arrivals(gateways, window_s, now_s) for window_s in WINDOWS_S),
        seen_first_token=clients if clients and clients.count > 0 else load.seen_first_token,
    )


def _arrivals(
    gateways: Iterable[Stretch[GatewayReading]], window_s: float, now_s: float
) -> Arrivals:
    """Count the arrivals of one window over all gateways."""
    within = [stretch.within(now_s - window_s) for stretch in gateways]
    count = sum(stretch.last.arrivals - stretch.first.arrivals for stretch in within)
    return Arrivals(window_s, count, count / _common_s(within))


def _common_s(
    stretches: Sequence[Stretch[EngineReading]] | Sequence[Stretch[GatewayReading]],
) -> float:
    """Return the seconds that all of them together were watched.

    The longest counts: one that came later did nothing before. A few seconds are not yet a rate.
    """
    return max(LEAST_RATE_S, *(stretch.covered_s for stretch in stretches), 0.0)


def _seen(pairs: Iterable[tuple[Histogram | None, Histogram | None]]) -> Histogram | None:
    """Add up what each target observed between its first and last reading."""
    return merged(last.since(first) for first, last in pairs if first and last)


def _work(stretch: Stretch[EngineReading], now_s: float) -> list[Work]:
    """Return what an engine did between each two readings, idle times left out."""
    done = []
    for older, newer in pairwise(stretch.readings):
        if older.steps is None or newer.steps is None or older.step_s is None:
            continue
        steps, step_s = newer.steps - older.steps, (newer.step_s or 0.0) - older.step_s
        if steps >= 1 and step_s > 0:
            done.append(
                Work(
                    age_s=now_s - newer.at_s,
                    steps=steps,
                    prompt_tokens=newer.prompt_tokens - older.prompt_tokens,
                    output_tokens=newer.output_tokens - older.output_tokens,
                    step_s=step_s,
                )
            )
    return done


def _emptiest_first(
    replicas: Iterable[Replica], engines: Mapping[str, Stretch[EngineReading]]
) -> tuple[str, ...]:
    """Order replicas by the work they hold: not ready, then emptiest, then without data."""

    def fullness(replica: Replica) -> tuple[int, float, float, str]:
        if not replica.ready:
            return (0, 0.0, 0.0, replica.name)
        if replica.name not in engines:
            return (2, 0.0, 0.0, replica.name)
        last = engines[replica.name].last
        return (1, last.running + last.waiting, last.tokens_in_flight or 0.0, replica.name)

    return tuple(replica.name for replica in sorted(replicas, key=fullness))
