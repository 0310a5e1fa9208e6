"""How many prompt tokens a step may carry beside running streams."""

from dataclasses import dataclass, replace
from typing import Final

FEWEST_PREFILL_TOKENS: Final = 16
"""Prompts move by at least one block a step, whatever the target: slow beats stuck."""
_SMOOTHING: Final = 0.2
"""Weight of the newest step in the averages: about the last ten steps count."""


@dataclass(frozen=True)
class Pace:
    """What steps have cost lately, smoothed.

    decode_step_s      seconds of a step that only decodes; None before the first
    prefill_token_s    extra seconds that one prompt token adds to a step; None before the first
    """

    decode_step_s: float | None = None
    prefill_token_s: float | None = None

    def after(self, step_s: float, prefill_tokens: int, decode_tokens: int) -> "Pace":
        """Return the pace with one more step seen."""
        if prefill_tokens == 0:
            return replace(self, decode_step_s=_smooth(self.decode_step_s, step_s))
        decode_s = (self.decode_step_s or 0.0) if decode_tokens else 0.0
        token_s = max(0.0, step_s - decode_s) / prefill_tokens
        return replace(self, prefill_token_s=_smooth(self.prefill_token_s, token_s))

    def prefill_tokens(self, tpot_target_s: float | None) -> int | None:
        """Return the prompt tokens that keep a mixed step within the target; None: no bound."""
        if tpot_target_s is None or not self.prefill_token_s:
            return None
        spare_s = tpot_target_s - (self.decode_step_s or 0.0)
        return max(FEWEST_PREFILL_TOKENS, int(spare_s / self.prefill_token_s))


def _smooth(before: float | None, now: float) -> float:
    return now if before is None else before + _SMOOTHING * (now - before)
