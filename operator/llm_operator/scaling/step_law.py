"""How long one step of an engine takes: T = fixed + per output token + per prompt token.

Fitted to what was measured, positive by construction. Where the measurements cannot tell the parts
apart (always the same batch size), a weak prior splits them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from llm_operator.scaling.learned import Pool

PRIOR_WEIGHT: Final = 0.01
PRIOR_FIXED_PER_OUTPUT: Final = 10.0
"""Until told otherwise, a step costs as much by itself as ten requests in it add."""

PRIOR_OUTPUT_PER_PROMPT: Final = 2.0
"""Until told otherwise, an output token costs twice a prompt token: prompts are read in bulk."""

FEWEST_STEPS: Final = 3
FEWEST_STEP_S: Final = 0.5

Matrix = list[list[float]]


@dataclass(frozen=True)
class StepLaw:
    """Seconds that a step takes by itself, and more for each token computed in it."""

    fixed_s: float
    per_output_s: float
    per_prompt_s: float


def fit(pools: Sequence[Pool]) -> StepLaw | None:
    """Return the law that fits the pools best; None while too little was seen.

    Minimises the weighted squares of the relative errors over all laws without a negative part.
    """
    steps, step_s = sum(p.steps for p in pools), sum(p.step_s for p in pools)
    if steps < FEWEST_STEPS or step_s < FEWEST_STEP_S:
        return None
    mean_s = step_s / steps
    rows = [
        (
            min(1.0, pool.step_s, pool.steps / 10),  # ten steps, a second: a full witness
            (pool.steps, pool.output_tokens, pool.prompt_tokens),
            pool.step_s / mean_s,
        )
        for pool in pools
    ]
    left: Matrix = [[0.0] * 3 for _ in range(3)]
    right = [0.0] * 3
    for weight, tokens, seconds in rows:
        row = [part / seconds for part in tokens]  # relative: row @ law = 1
        for i in range(3):
            right[i] += weight * row[i]
            for j in range(3):
                left[i][j] += weight * row[i] * row[j]
    for row in ([-1.0, PRIOR_FIXED_PER_OUTPUT, 0.0], [0.0, -1.0, PRIOR_OUTPUT_PER_PROMPT]):
        for i in range(3):
            for j in range(3):
                left[i][j] += PRIOR_WEIGHT * row[i] * row[j]
    fixed, per_output, per_prompt = _least_squares_without_negatives(left, right)
    return StepLaw(fixed * mean_s, per_output * mean_s, per_prompt * mean_s)


def _least_squares_without_negatives(left: Matrix, right: list[float]) -> list[float]:
    """Solve three normal equations for parts >= 0: the best of all choices of which are zero."""
    best, best_error = [0.0, 0.0, 0.0], float("inf")
    for size in (3, 2, 1):
        for free in combinations(range(3), size):
            values = _solve([[left[i][j] for j in free] for i in free], [right[i] for i in free])
            if values is None or min(values) < 0:
                continue
            law = [0.0, 0.0, 0.0]
            for index, value in zip(free, values, strict=True):
                law[index] = value
            error = _error(left, right, law)
            if error < best_error:
                best, best_error = law, error
    return best


def _error(left: Matrix, right: list[float], law: list[float]) -> float:
    """Return the squared error of a law, up to a constant."""
    product = [sum(left[i][j] * law[j] for j in range(3)) for i in range(3)]
    return sum(law[i] * (product[i] - 2 * right[i]) for i in range(3))


def _solve(matrix: Matrix, right: list[float]) -> list[float] | None:
    """Solve up to three linear equations by elimination; None where they have no one answer."""
    size = len(right)
    rows = [[*matrix[i], right[i]] for i in range(size)]
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(rows[k][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        if abs(rows[i][i]) < 1e-12:
            return None
        for k in range(i + 1, size):
            factor = rows[k][i] / rows[i][i]
            rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    values = [0.0] * size
    for i in reversed(range(size)):
        known = sum(rows[i][j] * values[j] for j in range(i + 1, size))
        values[i] = (rows[i][size] - known) / rows[i][i]
    return values
