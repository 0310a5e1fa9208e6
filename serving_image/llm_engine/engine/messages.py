"""What goes into the engine and what comes out. No torch."""

from dataclasses import dataclass
from typing import Literal

from llm_engine.sampling.parameters import SamplingParameters
from llm_engine.sampling.sampled import TokenLogprob

FinishReason = Literal["stop", "length", "abort", "error"]


class EngineStopped(Exception):
    """A request came to an engine that runs no more."""


@dataclass(frozen=True)
class GenerationRequest:
    """A prompt to continue; the id is the caller's and unique among running requests.

    priority        the lower, the more urgent; waiting makes every request more urgent
    cache_salt      only requests of the same salt share what was computed of a common prompt
    reads_prefixes  False computes the whole prompt, even what the cache holds
    """

    request_id: str
    prompt_tokens: tuple[int, ...]
    sampling: SamplingParameters
    priority: int = 0
    cache_salt: str = ""
    reads_prefixes: bool = True


@dataclass(frozen=True)
class RequestTimes:
    """Where a finished request's time went.

    arrived_at_s  monotonic clock at submit
    queue_s       from arrival to its first step
    prefill_s     from there to its first token
    decode_s      from there to its last token
    """

    arrived_at_s: float
    queue_s: float
    prefill_s: float
    decode_s: float
    prompt_tokens: int
    output_tokens: int
    preemptions: int

    @property
    def total_s(self) -> float:
        """Seconds from arrival to the end."""
        return self.queue_s + self.prefill_s + self.decode_s


@dataclass(frozen=True)
class TokenEvent:
    """News of one request.

    token_ids      new tokens, without the one that ended the text
    finish_reason  None while more may come; an event with a reason is the last one
    times          only with a reason; output_tokens counts the ending token too
    error          what went wrong, only with the reason "error"
    logprobs       one for each of `token_ids`, where the request asks for them
    cached_tokens  how many of the prompt's tokens the prefix cache held when it was admitted
    prompt_logprobs  of the prompt's tokens after the first, with the first event of a request
                     that asks for them
    """

    request_id: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    times: RequestTimes | None = None
    error: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    cached_tokens: int = 0
    prompt_logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class StepRecord:
    """One step, for metrics.

    context_tokens   whose keys and values were read, summed over the requests
    attended_tokens  seen, summed over the tokens computed
    """

    seconds: float
    prefill_tokens: int
    decode_tokens: int
    requests: int
    sampled_tokens: int
    recomputed_tokens: int
    preemptions: int
    context_tokens: int = 0
    attended_tokens: int = 0


@dataclass(frozen=True)
class EngineStats:
    """The engine at a glance.

    kv_usage                share of blocks held, 0-1
    pending_prefill_tokens  prompt tokens known but not yet computed, waiting ones included
    tokens_in_flight        prompt and output tokens of all unfinished requests
    max_concurrency         requests of the longest context that fit at the same time
    prefix_queried_tokens   prompt tokens of all requests that began to run
    prefix_found_tokens     those of them that the prefix cache held
    keeps_prefixes          whether there is a prefix cache
    weight_bytes            of all weights, as they are kept
    last_token_at_s         monotonic clock at the newest token; None before the first
    """

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    pending_prefill_tokens: int = 0
    tokens_in_flight: int = 0
    preemptions: int = 0
    recomputed_tokens: int = 0
    prefix_queried_tokens: int = 0
    prefix_found_tokens: int = 0
    blocks: int = 0
    block_tokens: int = 0
    max_concurrency: float = 0.0
    keeps_prefixes: bool = False
    weight_bytes: int = 0
    last_token_at_s: float | None = None

    @property
    def is_idle(self) -> bool:
        """Tell whether there is nothing to do."""
        return self.running == 0 and self.waiting == 0
