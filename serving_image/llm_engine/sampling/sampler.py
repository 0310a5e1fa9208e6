"""Choose the next token of every request of a step."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from llm_engine.contract.memory_plan import DRAWN_ROWS
from llm_engine.sampling.choice import Choice
from llm_engine.sampling.grammar import Matcher
from llm_engine.sampling.logprobs import token_logprobs
from llm_engine.sampling.parameters import SamplingParameters
from llm_engine.sampling.sampled import Sampled

FIRST_LOOK: Final = 256
"""The most probable tokens that top-p looks at before it sorts a whole vocabulary."""


def sample(logits: Tensor, choices: Sequence[Choice]) -> list[Sampled]:
    """Return the next token of every row of logits [requests, vocabulary].

    Log-probabilities are computed for the rows that ask; the others pay nothing for them.
    """
    asking = [row for row, c in enumerate(choices) if c.parameters.top_logprobs is not None]
    if not asking:
        return [Sampled(token) for token in choose_tokens(logits, choices)]
    unadjusted = logits[asking]  # a copy: choosing may change the logits in place
    tokens = choose_tokens(logits, choices)
    top = [choices[row].parameters.top_logprobs or 0 for row in asking]
    logprobs = token_logprobs(unadjusted, [tokens[row] for row in asking], top)
    of_row = dict(zip(asking, logprobs, strict=True))
    return [Sampled(token, of_row.get(row)) for row, token in enumerate(tokens)]


def choose_tokens(logits: Tensor, choices: Sequence[Choice]) -> list[int]:
    """Return one token per row of logits [requests, vocabulary]."""
    logits = logits.float()
    for row, choice in enumerate(choices):
        _adjust(logits[row], choice)
    drawn = [row for row, choice in enumerate(choices) if not choice.parameters.is_greedy]
    tokens = logits.argmax(dim=-1)
    for first in range(0, len(drawn), DRAWN_ROWS):
        rows = drawn[first : first + DRAWN_ROWS]
        tokens[rows] = _draw(logits[rows], [choices[row] for row in rows])
    chosen: list[int] = tokens.tolist()
    return chosen


def _adjust(row: Tensor, choice: Choice) -> None:
    """Apply grammar, bias, penalties and the ban on early ends to one row, in place."""
    parameters = choice.parameters
    if choice.matcher is not None:
        _mask(row, choice.matcher)
    if parameters.logit_bias:
        biased, values = zip(*parameters.logit_bias, strict=True)
        row[list(biased)] += torch.tensor(values, device=row.device)
    if len(choice.tokens) - choice.prompt_tokens < parameters.min_tokens and choice.end_tokens:
        row[list(choice.end_tokens)] = float("-inf")
    if not parameters.has_penalties:
        return
    if parameters.repetition_penalty != 1.0:
        seen = torch.tensor(sorted(set(choice.tokens)), device=row.device)
        before = row[seen]
        penalty = parameters.repetition_penalty
        row[seen] = torch.where(before > 0, before / penalty, before * penalty)
    counts = Counter(choice.tokens[choice.prompt_tokens :])
    if counts:
        generated = torch.tensor(list(counts), device=row.device)
        times = torch.tensor(list(counts.values()), device=row.device, dtype=row.dtype)
        row[generated] -= parameters.presence_penalty + parameters.frequency_penalty * times


def _mask(row: Tensor, matcher: Matcher) -> None:
    """Ban all tokens that the grammar does not allow; a grammar that has failed bans none."""
    allowed = matcher.allowed()
    if allowed is not None:
        bits = np.unpackbits(np.frombuffer(allowed, np.uint8), count=len(row), bitorder="little")
        row.masked_fill_(torch.from_numpy(bits == 0).to(row.device), float("-inf"))


def _draw(logits: Tensor, choices: Sequence[Choice]) -> Tensor:
    """Draw one token per row: filter, then walk up the cumulated probabilities."""
    temperatures = [choice.parameters.temperature for choice in choices]
    # The maximum goes first, so that a tiny temperature cannot overflow.
    logits = logits - logits.amax(dim=-1, keepdim=True)
    logits /= torch.tensor(temperatures, device=logits.device)[:, None]
    probabilities = torch.softmax(logits, dim=-1)
    for row, choice in enumerate(choices):
        _filter(probabilities[row], choice.parameters)
    cumulated = probabilities.cumsum(dim=-1)
    draws = torch.tensor([choice.chance.random() for choice in choices], device=logits.device)
    targets = draws[:, None] * cumulated[:, -1:]
    # The first token whose cumulated probability exceeds the draw; it has a probability itself.
    found = torch.searchsorted(cumulated, targets, right=True)[:, 0]
    # Rounding can lift a draw to the total itself: then it is the last token that has one.
    from_the_end = (probabilities > 0).flip(-1).byte().argmax(dim=-1)
    return torch.minimum(found, probabilities.shape[-1] - 1 - from_the_end)


def _filter(row: Tensor, parameters: SamplingParameters) -> None:
    """Set the probability of every token that is not kept to zero, in place."""
    if parameters.top_k is not None and parameters.top_k < len(row):
        least = row.topk(parameters.top_k).values[-1]
        row[row < least] = 0.0
    if parameters.top_p < 1.0:
        row[row < _least_of_nucleus(row, parameters.top_p)] = 0.0
    if parameters.min_p > 0.0:
        row[row < parameters.min_p * row.max()] = 0.0


def _least_of_nucleus(row: Tensor, top_p: float) -> Tensor:
    """Return the smallest probability among the fewest tokens that hold `top_p` together."""
    wanted = top_p * row.sum()
    for looked_at in (min(FIRST_LOOK, len(row)), len(row)):
        ordered = row.topk(looked_at).values
        enough = ordered.cumsum(dim=0) >= wanted
        if enough.any():
            return ordered[enough.int().argmax()]
    return row.new_zeros(())  # rounding left the sum just below: keep all
