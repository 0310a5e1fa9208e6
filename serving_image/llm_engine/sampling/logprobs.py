"""Log-probabilities of tokens that are known, for those requests that ask."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llm_engine.sampling.sampled import TokenLogprob


def token_logprobs(logits: Tensor, tokens: Sequence[int], top: Sequence[int]) -> list[TokenLogprob]:
    """Return the log-probability of one token per row of logits [tokens, vocabulary].

    top  how many of the most probable tokens each row wants beside its own

    Row by row in float32, so that a row's figures do not depend on its neighbours.
    """
    answers = []
    for row, token, count in zip(logits, tokens, top, strict=True):
        logprobs = torch.log_softmax(row.float(), dim=-1)
        best = logprobs.topk(min(count, len(logprobs)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        answers.append(TokenLogprob(token, float(logprobs[token]), tuple(pairs)))
    return answers
