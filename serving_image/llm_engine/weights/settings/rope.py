"""Rotary position embeddings: their base, and how a model stretches them beyond its training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from llm_engine.weights.header import refuse
from llm_engine.weights.settings.values import MOST_CONTEXT_TOKENS, Values, unsupported

DEFAULT_THETA: Final = 10_000.0


@dataclass(frozen=True)
class LinearScaling:
    """Every position is divided by `factor`."""

    factor: float


@dataclass(frozen=True)
class Llama3Scaling:
    """How Llama 3.1 stretches slow rotations for contexts beyond its original one."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context_tokens: int


@dataclass(frozen=True)
class YarnScaling:
    """YaRN (arXiv 2309.00071): stretch slow rotations, keep fast ones, and sharpen the scores.

    fast_turns, slow_turns  turns within the original context above which a rotation is kept, and
                            below which it is divided by `factor`
    magnitude               factor on cosines and sines
    whole                   round the dimensions between which both are blended
    """

    factor: float
    original_context_tokens: int
    fast_turns: float
    slow_turns: float
    magnitude: float | None
    whole: bool


@dataclass(frozen=True)
class LongScaling:
    """LongRoPE (Phi-3): a divisor per frequency, found by search.

    long is used for every text once the served context exceeds the original one, short otherwise:
    keys in the cache cannot change when a text grows.

    short, long  [rotary_dim / 2]
    magnitude    factor on cosines and sines; None: follows from factor
    """

    short: tuple[float, ...]
    long: tuple[float, ...]
    factor: float
    original_context_tokens: int
    magnitude: float | None


Scaling = LinearScaling | Llama3Scaling | YarnScaling | LongScaling


@dataclass(frozen=True)
class Rope:
    """The rotations of some layers.

    rotary_dim  leading dimensions of a head that are rotated; the others stay
    """

    theta: float
    rotary_dim: int
    scaling: Scaling | None = None


def rope_from_config(values: Values, head_dim: int, context_tokens: int) -> Rope:
    """Read one object of rope parameters.

    Raises ModelRefused for types of scaling that this engine does not know.
    """
    share = values.positive("partial_rotary_factor", 1.0)
    rotary_dim = checked_rotary_dim(values, int(head_dim * share), head_dim)
    kind = values.get("rope_type") or values.get("type") or "default"
    read = _SCALINGS.get(kind) if isinstance(kind, str) else None
    if read is None:
        known = ", ".join(sorted(_SCALINGS))
        unsupported(values.path, f"rope type is {kind!r}", f"knows {known}")
    theta = values.positive("rope_theta")
    if theta <= 1:
        refuse(values.path, f"rope_theta is {theta}", "a number above 1")
    return Rope(
        theta=theta,
        rotary_dim=rotary_dim,
        scaling=read(values, rotary_dim, context_tokens),
    )


def checked_rotary_dim(values: Values, rotary_dim: int, head_dim: int) -> int:
    """Return `rotary_dim`, or refuse the model: dimensions are rotated in pairs."""
    if not 2 <= rotary_dim <= head_dim or rotary_dim % 2:
        found = f"{rotary_dim} of {head_dim} dimensions of a head are rotated"
        refuse(values.path, found, "an even number of them")
    return rotary_dim


def _none(_numbers: Values, _rotary_dim: int, _context_tokens: int) -> None:
    """Change nothing. So does "dynamic" up to the model's own context, and more is not served."""
    return None


def _linear(values: Values, _rotary_dim: int, _context_tokens: int) -> LinearScaling:
    return LinearScaling(values.positive("factor"))


def _llama3(values: Values, _rotary_dim: int, context_tokens: int) -> Llama3Scaling:
    low, high = values.positive("low_freq_factor"), values.positive("high_freq_factor")
    if low >= high:
        refuse(values.path, f"low_freq_factor is {low}", f"less than high_freq_factor, {high}")
    return Llama3Scaling(
        factor=values.positive("factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_context_tokens=_original(values, context_tokens),
    )


def _yarn(values: Values, _rotary_dim: int, context_tokens: int) -> YarnScaling:
    for name in ("mscale", "mscale_all_dim"):
        if values.get(name):
            unsupported(values.path, f"{name} is set", "takes yarn's magnitude from factor")
    original = _original(values, context_tokens)
    return YarnScaling(
        factor=values.positive("factor", context_tokens / original),
        original_context_tokens=original,
        fast_turns=values.positive("beta_fast", 32.0),
        slow_turns=values.positive("beta_slow", 1.0),
        magnitude=values.optional_positive("attention_factor"),
        whole=values.get("truncate") is not False,
    )


def _long(values: Values, rotary_dim: int, context_tokens: int) -> LongScaling:
    original = _original(values, context_tokens)
    return LongScaling(
        short=values.positives("short_factor", rotary_dim // 2),
        long=values.positives("long_factor", rotary_dim // 2),
        factor=values.positive("factor", context_tokens / original),
        original_context_tokens=original,
        magnitude=values.optional_positive("attention_factor"),
    )


def _original(values: Values, context_tokens: int) -> int:
    name = "original_max_position_embeddings"
    tokens = values.whole(name, context_tokens, most=MOST_CONTEXT_TOKENS)
    if tokens < 2:
        refuse(values.path, f"{name} is {tokens}", "at least 2")
    return tokens


_SCALINGS: Final[Mapping[str, Any]] = {
    "default": _none,
    "dynamic": _none,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _long,
    "su": _long,  # what Phi-3 called longrope at first
}
