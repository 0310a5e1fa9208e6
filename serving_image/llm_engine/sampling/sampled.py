"""What choosing a token yields. No torch: it travels to the server, in another process perhaps."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenLogprob:
    """How probable the model itself found a token, before penalties, bias, grammar or temperature.

    logprob  natural logarithm of its probability
    top      the most probable tokens at this place with theirs, the most probable first
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Sampled:
    """The next token of a request; its log-probability only where the request asks for it."""

    token: int
    logprob: TokenLogprob | None = None


@dataclass(frozen=True)
class StepResult:
    """What one step yields.

    sampled  the next token of each choice
    scored   the log-probabilities of known tokens, for each `Score` that was asked for
    """

    sampled: Sequence[Sampled]
    scored: Sequence[Sequence[TokenLogprob]] = ()
