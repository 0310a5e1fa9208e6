"""What was learned of one replica by watching it work: step seconds by batch size, lengths.

Work is pooled by how it was done (requests and prompt tokens per step), so that an hour at full
batch does not wash out what a small batch costs. Everything forgets by work done, never by the
clock, so nothing changes at rest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from llm_operator.scaling.histogram import Histogram
from llm_operator.scaling.load import Load, Work

POOL_S: Final = 30.0
"""A pool remembers about this many seconds of steps of its kind."""

FORGET_S: Final = 900.0
"""Other pools fade with this many seconds of new work."""

MAX_POOLS: Final = 14
LENGTH_WEIGHT: Final = 5.0
"""What is remembered of lengths weighs as much as this many finished requests."""

FEWEST_REQUESTS: Final = 3


@dataclass(frozen=True)
class Pool:
    """Steps of one kind: about as many requests and prompt tokens in each."""

    requests_octave: int
    prompt_octave: int
    steps: float
    prompt_tokens: float
    output_tokens: float
    step_s: float

    @property
    def kind(self) -> tuple[int, int]:
        """What its steps have in common."""
        return (self.requests_octave, self.prompt_octave)

    def scaled(self, factor: float) -> "Pool":
        """Return the pool with its weight changed and its means kept."""
        return replace(
            self,
            steps=self.steps * factor,
            prompt_tokens=self.prompt_tokens * factor,
            output_tokens=self.output_tokens * factor,
            step_s=self.step_s * factor,
        )

    def plus(self, other: "Pool") -> "Pool":
        """Add the work of another pool of this kind; keep no more than POOL_S."""
        both = replace(
            self,
            steps=self.steps + other.steps,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            step_s=self.step_s + other.step_s,
        )
        return both.scaled(min(1.0, POOL_S / both.step_s))


@dataclass(frozen=True)
class Learned:
    """What is known of one replica and of the requests it gets; tokens are means per request."""

    pools: tuple[Pool, ...] = ()
    prompt_tokens: float | None = None
    output_tokens: float | None = None


def learn(learned: Learned, load: Load, watched_s: float) -> Learned:
    """Take in what happened during the last `watched_s` seconds; without any, nothing changes."""
    if watched_s <= 0:
        return learned
    new = [work for work in load.work if work.age_s < watched_s]
    weight = min(1.0, watched_s / 15.0)
    return Learned(
        pools=_pooled(learned.pools, new) if new else learned.pools,
        prompt_tokens=_length(learned.prompt_tokens, load.prompts, weight),
        output_tokens=_length(learned.output_tokens, load.outputs, weight),
    )


def _pooled(pools: Sequence[Pool], work: Sequence[Work]) -> tuple[Pool, ...]:
    """Return the pools with new work added, the heaviest MAX_POOLS of them, by kind."""
    fade = math.exp(-sum(done.step_s for done in work) / FORGET_S)
    by_kind = {pool.kind: pool.scaled(fade) for pool in pools}
    for done in work:
        new = _pool_of(done)
        old = by_kind.get(new.kind)
        by_kind[new.kind] = old.plus(new) if old else new
    heaviest = sorted(by_kind.values(), key=lambda pool: -pool.step_s)[:MAX_POOLS]
    return tuple(sorted(heaviest, key=lambda pool: pool.kind))


def _pool_of(done: Work) -> Pool:
    """Return the pool that holds just this work."""
    requests = max(1.0, done.output_tokens / done.steps)
    prompt = done.prompt_tokens / done.steps
    return Pool(
        requests_octave=round(2 * math.log2(requests)),  # half octaves
        prompt_octave=0 if prompt < 1 else 1 + int(math.log2(prompt) / 2),  # two octaves each
        steps=done.steps,
        prompt_tokens=done.prompt_tokens,
        output_tokens=done.output_tokens,
        step_s=done.step_s,
    )


def _length(known: float | None, finished: Histogram | None, weight: float) -> float | None:
    """Move a remembered mean towards that of the requests which finished within the minute."""
    if finished is None or finished.mean is None:
        return known
    if known is None:
        return finished.mean if finished.count >= FEWEST_REQUESTS else None
    share = weight * finished.count / (finished.count + LENGTH_WEIGHT)
    return known + share * (finished.mean - known)
