"""A request while the engine works on it: its caller, its chance, its times."""

import logging
from collections.abc import Callable, Sequence
from random import Random, SystemRandom

from llm_engine.engine.messages import FinishReason, GenerationRequest, RequestTimes, TokenEvent
from llm_engine.sampling.choice import Choice, Score
from llm_engine.sampling.grammar import Matcher
from llm_engine.sampling.sampled import TokenLogprob
from llm_engine.scheduling.request import Request

log = logging.getLogger(__name__)


class ActiveRequest:
    """What surrounds one scheduled request."""

    def __init__(
        self,
        asked: GenerationRequest,
        on_event: Callable[[TokenEvent], None],
        eos_tokens: frozenset[int],
        block_tokens: int,
        windows: tuple[int | None, ...],
        now_s: float,
        matcher: Matcher | None = None,
    ) -> None:
        self.name = asked.request_id
        self.request = Request(
            asked.request_id,
            list(asked.prompt_tokens),
            block_tokens,
            windows,
            most_output=asked.sampling.max_tokens,
            priority=asked.priority,
            salt=asked.cache_salt,
            reads_prefixes=asked.reads_prefixes,
        )
        self.preemptions = 0
        self._sampling = asked.sampling
        self._matcher = matcher
        self._on_event = on_event
        own_ends = frozenset() if asked.sampling.ignore_eos else eos_tokens
        self._end_tokens = own_ends | asked.sampling.stop_token_ids
        seed = asked.sampling.seed
        self._chance = Random(SystemRandom().getrandbits(64) if seed is None else seed)
        self._prompt_logprobs: list[TokenLogprob] = []
        self._scored_tokens = 0
        self._arrived_at_s = now_s
        self._scheduled_at_s: float | None = None
        self._first_token_at_s: float | None = None

    def choice(self) -> Choice:
        """Return what the sampler needs to choose the next token."""
        return Choice(
            parameters=self._sampling,
            tokens=self.request.tokens,
            prompt_tokens=self.request.prompt_tokens,
            chance=self._chance,
            end_tokens=self._end_tokens,
            matcher=self._matcher,
        )

    def score(self, order: int, count: int) -> Score | None:
        """Return what to learn of the prompt when `count` tokens are computed, if anything.

        order  which of the step's requests this one is
        """
        top = self._sampling.prompt_logprobs
        first, last = self._scored_tokens + 1, self.request.computed_tokens + count
        # The first token of a prompt follows nothing; preempted requests have some already.
        positions = range(first, min(last + 1, self.request.prompt_tokens))
        if top is None or not positions:
            return None
        tokens = self.request.tokens[positions.start : positions.stop]
        return Score(order, positions, tokens, top)

    def scored(self, logprobs: Sequence[TokenLogprob]) -> None:
        """Take what a step told of the next tokens of the prompt."""
        self._prompt_logprobs += logprobs
        self._scored_tokens += len(logprobs)

    def take_prompt_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Return what has been learned of the prompt, once."""
        taken, self._prompt_logprobs = tuple(self._prompt_logprobs), []
        return taken

    def scheduled(self, now_s: float) -> None:
        """Note the first step."""
        if self._scheduled_at_s is None:
            self._scheduled_at_s = now_s

    def sampled(self, token: int, now_s: float) -> None:
        """Append a new token, and note the time of the first."""
        self.request.tokens.append(token)
        if self._matcher is not None and token not in self._end_tokens:
            self._matcher.accept(token)
        if self._first_token_at_s is None:
            self._first_token_at_s = now_s

    def is_shown(self, token: int, reason: FinishReason) -> bool:
        """Tell whether this last token belongs to the text, or only ended it."""
        return reason != "stop" or token not in self._end_tokens

    def finish_reason(self, token: int) -> FinishReason | None:
        """Tell whether the text ends with this token, already taken in, and why."""
        if token in self._end_tokens and self.request.output_tokens > self._sampling.min_tokens:
            return "stop"
        if self._matcher is not None and self._matcher.failure is not None:
            log.warning("%s ends early: its grammar, %s", self.name, self._matcher.failure)
            return "length"  # the text is as incomplete as if its tokens had run out
        if self._matcher is not None and self._matcher.is_complete:
            return "stop"
        if self.request.output_tokens >= self._sampling.max_tokens:
            return "length"
        return None

    def tell(self, event: TokenEvent) -> bool:
        """Pass an event on; False when the caller failed, which must not harm other requests."""
        try:
            self._on_event(event)
        except Exception:
            log.exception("the receiver of request %s failed", self.name)
            return False
        return True

    def times(self, now_s: float) -> RequestTimes:
        """Return where the time went until now."""
        scheduled_s = now_s if self._scheduled_at_s is None else self._scheduled_at_s
        first_s = now_s if self._first_token_at_s is None else self._first_token_at_s
        return RequestTimes(
            arrived_at_s=self._arrived_at_s,
            queue_s=scheduled_s - self._arrived_at_s,
            prefill_s=first_s - scheduled_s,
            decode_s=now_s - first_s,
            prompt_tokens=self.request.prompt_tokens,
            output_tokens=self.request.output_tokens,
            preemptions=self.preemptions,
        )
