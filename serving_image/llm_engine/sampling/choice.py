"""What the sampler is told of a request. No torch: the scheduler's side builds these."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from llm_engine.sampling.grammar import Matcher
from llm_engine.sampling.parameters import SamplingParameters


@dataclass(frozen=True)
class Choice:
    """What choosing one token needs to know of its request.

    tokens         prompt and output so far
    prompt_tokens  how many of them are the prompt
    chance         the request's own source of chance: one draw per token, in any batch
    end_tokens     ids that may not come before min_tokens are there
    matcher        where the text stands in its grammar; None: any token may come
    """

    parameters: SamplingParameters
    tokens: Sequence[int]
    prompt_tokens: int
    chance: Random
    end_tokens: frozenset[int]
    matcher: Matcher | None = None


@dataclass(frozen=True)
class Score:
    """Tokens of a prompt whose log-probabilities are wanted of a step.

    order      which of the step's requests it is, from 0
    positions  of the tokens; the one before each is computed in this step
    tokens     those at the positions
    top        how many of the most probable tokens to report beside each
    """

    order: int
    positions: range
    tokens: Sequence[int]
    top: int
