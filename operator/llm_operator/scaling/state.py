"""What the scaling law remembers between two looks: small, JSON, and still at rest.

Times are Unix seconds, since they outlive a restart in the status. Time that nobody watched (the
operator was away, the clock jumped) is taken out: it is never proof of calm.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from llm_operator.scaling.learned import Learned, Pool
from llm_operator.scaling.rounding import rounded

MAX_LOOK_S: Final = 60.0
"""Longer between two looks than this, and nobody was watching."""

ACTIVE_WRITE_S: Final = 60.0
LEARNED_WRITE: Final = 0.2
"""A learned number is written anew when it has moved by this share."""


@dataclass(frozen=True)
class Want:
    """A number of replicas, and when it was last wanted."""

    at_s: float
    replicas: int


@dataclass(frozen=True)
class ScalingState:
    """Memory of the scaling law for one LLMDeployment; a fresh one has seen nothing.

    wants        most wanted first; an older want for no more than a newer one is forgotten
    active_at_s  when the model was last used
    ready_at_s   when the number of ready replicas last changed
    ordered      replicas that were ordered at the last look
    shrunk_at_s  when fewer were first seen ordered than before
    resumed      read from a status and not looked at since
    """

    at_s: float | None = None
    wants: tuple[Want, ...] = ()
    active_at_s: float | None = None
    ready: int = 0
    ready_at_s: float | None = None
    ordered: int | None = None
    shrunk_at_s: float | None = None
    learned: Learned = field(default_factory=Learned)
    resumed: bool = False

    def looked_at(self, now_s: float) -> tuple["ScalingState", float | None]:
        """Return the state at `now_s`, and the seconds watched since the last look (0-60).

        None instead of the seconds: nobody watched, and what was before proves nothing.
        """
        if self.at_s is None:
            return replace(self, at_s=now_s, resumed=False), None
        elapsed_s = now_s - self.at_s
        watched_s = elapsed_s if 0 <= elapsed_s <= MAX_LOOK_S and not self.resumed else None
        shift_s = elapsed_s - (watched_s or 0.0)

        def moved(at_s: float | None) -> float | None:
            return None if at_s is None else min(at_s + shift_s, now_s)

        wants = tuple(Want(min(w.at_s + shift_s, now_s), w.replicas) for w in self.wants)
        return replace(
            self,
            resumed=False,
            at_s=now_s,
            wants=wants,
            active_at_s=moved(self.active_at_s),
            ready_at_s=moved(self.ready_at_s),
            shrunk_at_s=moved(self.shrunk_at_s),
        ), watched_s

    def wanting(self, replicas: int, now_s: float, stabilization_s: float) -> "ScalingState":
        """Remember that so many replicas are wanted now, and forget what cannot matter again."""
        still_matters = (
            want
            for want in self.wants
            if want.replicas > replicas and now_s - want.at_s < stabilization_s
        )
        return replace(self, wants=(*still_matters, Want(now_s, replicas)))

    @property
    def most_wanted(self) -> int | None:
        """The most replicas that anybody wanted within the stabilization time."""
        return self.wants[0].replicas if self.wants else None

    def worth_writing(self, saved: "ScalingState") -> bool:
        """Tell whether losing the change since `saved` would lose a decision; False at rest."""
        if [w.replicas for w in self.wants] != [w.replicas for w in saved.wants]:
            return True
        if self.ordered != saved.ordered:
            return True
        active_s, saved_s = self.active_at_s or 0.0, saved.active_at_s or 0.0
        if abs(active_s - saved_s) >= ACTIVE_WRITE_S:
            return True
        return _moved(self.learned, saved.learned)

    def as_status(self) -> dict[str, Any]:
        """Return the state as JSON for the status; numbers are rounded."""
        learned = {
            "promptTokens": rounded(self.learned.prompt_tokens),
            "outputTokens": rounded(self.learned.output_tokens),
            "pools": [[rounded(value) for value in asdict(p).values()] for p in self.learned.pools],
        }
        return {
            "at": _whole(self.at_s),
            "wants": [[round(want.at_s), want.replicas] for want in self.wants],
            "activeAt": _whole(self.active_at_s),
            "ready": self.ready,
            "readyAt": _whole(self.ready_at_s),
            "ordered": self.ordered,
            "shrunkAt": _whole(self.shrunk_at_s),
            "learned": learned,
        }

    @classmethod
    def from_status(cls, value: object) -> "ScalingState":
        """Read the state back; what is absent or no longer understood is a fresh state."""
        try:
            return _read(value) if isinstance(value, Mapping) else cls()
        except (KeyError, TypeError, ValueError, OverflowError):
            return cls()


def _read(status: Mapping[str, Any]) -> ScalingState:
    """Read a state; raises where a number is missing, of another kind or out of bounds."""
    learned = status["learned"]
    pools = [[_number(part) for part in pool] for pool in learned["pools"]]
    if any(len(pool) != len(fields(Pool)) or pool[5] <= 0 for pool in pools):
        raise ValueError("a pool is a list of six numbers, the last above 0")
    return ScalingState(
        at_s=_number(status["at"]),
        wants=tuple(Want(_number(at_s), int(_number(n))) for at_s, n in status["wants"]),
        active_at_s=_optional(status["activeAt"]),
        ready=int(_number(status["ready"])),
        ready_at_s=_optional(status["readyAt"]),
        ordered=None if status["ordered"] is None else int(_number(status["ordered"])),
        shrunk_at_s=_optional(status["shrunkAt"]),
        learned=Learned(
            pools=tuple(Pool(int(p[0]), int(p[1]), *p[2:]) for p in pools),
            prompt_tokens=_optional(learned["promptTokens"]),
            output_tokens=_optional(learned["outputTokens"]),
        ),
        resumed=True,
    )


def _number(value: object) -> float:
    """Return a finite number that is not negative; raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"not a number: {value!r}")
    number = float(value)
    if not 0 <= number < 1e15:
        raise ValueError(f"out of bounds: {value!r}")
    return number


def _optional(value: object) -> float | None:
    return None if value is None else _number(value)


def _whole(at_s: float | None) -> int | None:
    return None if at_s is None else round(at_s)


def _moved(now: Learned, saved: Learned) -> bool:
    """Tell whether what was learned differs enough to be written."""
    if {pool.kind for pool in now.pools} != {pool.kind for pool in saved.pools}:
        return True
    old = {pool.kind: pool.step_s / pool.steps for pool in saved.pools if pool.steps}
    pairs = [
        (now.prompt_tokens, saved.prompt_tokens),
        (now.output_tokens, saved.output_tokens),
        *((p.step_s / p.steps, old.get(p.kind)) for p in now.pools if p.steps),
    ]
    return any((a is None) != (b is None) or _apart(a or 0.0, b or 0.0) for a, b in pairs)


def _apart(now: float, saved: float) -> bool:
    return abs(now - saved) > LEARNED_WRITE * max(abs(now), abs(saved))
