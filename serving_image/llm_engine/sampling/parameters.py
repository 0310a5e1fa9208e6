"""How a request wants its tokens chosen. No torch: the server builds these."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SamplingParameters:
    """The choices of one request, with OpenAI's meanings.

    max_tokens        most tokens to generate, at least 1
    temperature       0 is greedy: the most probable token, always
    top_p             share of probability that the kept tokens have together, 0 < top_p <= 1
    top_k             most tokens kept; None: all
    min_p             least probability of a kept token, relative to the most probable one
    seed              the same seed gives the same text, whatever else runs; None: unpredictable
    min_tokens        no end token before so many were generated
    ignore_eos        go on after the model's own end tokens (for benchmarks)
    stop_token_ids    further tokens that end the text
    *_penalty         presence and frequency are subtracted from the logits of generated tokens;
                      repetition divides positive ones (and multiplies negative ones) of all
                      tokens seen, the prompt's too
    logit_bias        (token, value) pairs: the value is added to the token's logit
    prompt_logprobs   report the prompt's tokens likewise; None: not at all
    grammar           what the text must follow, in llguidance's words; None: anything
    top_logprobs      report each token's log-probability, and those of so many more; None: neither
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    seed: int | None = None
    ignore_eos: bool = False
    stop_token_ids: frozenset[int] = frozenset()
    min_tokens: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: str | None = None

    @property
    def is_greedy(self) -> bool:
        """Tell whether the most probable token is always taken."""
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        """Tell whether tokens already seen change the logits."""
        return (
            self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
            or self.repetition_penalty != 1.0
        )
