"""The requests of an engine and the steps that move them. Used by one thread only."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from llm_engine.contract.layer_groups import most_blocks
from llm_engine.engine.active import ActiveRequest
from llm_engine.engine.loaded import StepRunner
from llm_engine.engine.messages import EngineStats, FinishReason, StepRecord, TokenEvent
from llm_engine.sampling.sampled import Sampled
from llm_engine.scheduling.blocks import BlockPool
from llm_engine.scheduling.pacing import Pace
from llm_engine.scheduling.plan import Limits, Step
from llm_engine.scheduling.request import Request
from llm_engine.scheduling.scheduler import Scheduler


class Stepper:
    """Plans a step, runs it, hands its tokens out.

    on_finished  told the name of every request that ended, before its caller is
    """

    def __init__(
        self,
        runner: StepRunner,
        limits: Limits,
        max_context_tokens: int,
        tpot_target_s: float | None,
        on_finished: Callable[[str], None],
        keeps_prefixes: bool = True,
    ) -> None:
        self._runner = runner
        self._limits = limits
        self._tpot_target_s = tpot_target_s
        self._on_finished = on_finished
        self._pace = Pace()
        self._scheduler = Scheduler(BlockPool(runner.blocks, keeps_prefixes))
        self._active: dict[Request, ActiveRequest] = {}
        longest = sum(
            most_blocks(window, max_context_tokens, limits.step_tokens, runner.block_tokens)
            for window in runner.windows
        )
        self._stats = EngineStats(
            blocks=runner.blocks,
            block_tokens=runner.block_tokens,
            max_concurrency=runner.blocks / longest,
            keeps_prefixes=keeps_prefixes,
            weight_bytes=runner.weight_bytes,
        )

    @property
    def has_work(self) -> bool:
        """Tell whether any request is unfinished."""
        return bool(self._active)

    def add(self, active: ActiveRequest) -> None:
        """Queue a request."""
        self._active[active.request] = active
        self._scheduler.add(active.request)

    def finish(
        self,
        active: ActiveRequest,
        reason: FinishReason,
        last: Sampled | None = None,
        error: str | None = None,
    ) -> None:
        """End a request and free its blocks; one that has ended already stays as it is.

        last  a token that its caller has not been told yet
        """
        request = active.request
        if self._active.pop(request, None) is None:
            return
        self._scheduler.remove(request)
        self._on_finished(active.name)
        times = active.times(time.monotonic())
        active.tell(replace(_news(active, last), finish_reason=reason, times=times, error=error))

    def finish_running(self, error: str) -> None:
        """End with an error all requests that a failed step may have harmed."""
        for request in list(self._scheduler.running):
            self.finish(self._active[request], "error", error=error)

    def finish_all(self, reason: FinishReason, error: str | None = None) -> None:
        """End every request."""
        for active in list(self._active.values()):
            self.finish(active, reason, error=error)

    def step(self) -> StepRecord:
        """Compute one step."""
        started_s = time.monotonic()
        step = self._begin(started_s)
        catching_up = [r for r, count in step.tokens.items() if count == r.tokens_behind]
        decode_tokens = sum(1 for request in step.tokens if request.is_decoding)
        contexts = [(r.computed_tokens + count, count) for r, count in step.tokens.items()]
        sampled = self._run(step, catching_up)
        recomputed = self._scheduler.end_step(step.tokens)
        now_s = time.monotonic()
        for request, choice in zip(catching_up, sampled, strict=True):
            self._deliver(self._active[request], choice, now_s)
        record = StepRecord(
            seconds=now_s - started_s,
            prefill_tokens=sum(step.tokens.values()) - decode_tokens,
            decode_tokens=decode_tokens,
            requests=len(step.tokens),
            sampled_tokens=len(sampled),
            recomputed_tokens=recomputed,
            preemptions=len(step.evicted),
            context_tokens=sum(context for context, _ in contexts),
            # Of the tokens computed the first sees `context - count + 1`, the last all.
            attended_tokens=sum(n * (2 * context - n + 1) // 2 for context, n in contexts),
        )
        self._count(record, now_s)
        return record

    def stats(self) -> EngineStats:
        """Return the state between two steps."""
        behind = sum(r.tokens_behind for r in self._active if not r.is_decoding)
        return replace(
            self._stats,
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            kv_usage=self._scheduler.pool.usage,
            prefix_queried_tokens=self._scheduler.queried_tokens,
            prefix_found_tokens=self._scheduler.found_tokens,
            pending_prefill_tokens=behind,
            tokens_in_flight=sum(len(request.tokens) for request in self._active),
        )

    def _begin(self, now_s: float) -> Step:
        """Plan a step, and note who was preempted and who begins."""
        limits = replace(
            self._limits, prefill_tokens=self._pace.prefill_tokens(self._tpot_target_s)
        )
        step = self._scheduler.begin_step(limits)
        if not step.tokens:
            raise RuntimeError(f"{len(self._active)} requests and none of them can move")
        for request in step.evicted:
            self._active[request].preemptions += 1
        for request in step.admitted:
            self._active[request].scheduled(now_s)
        return step

    def _run(self, step: Step, catching_up: Sequence[Request]) -> Sequence[Sampled]:
        """Compute the step, and return the next token of each request that catches up."""
        choices = [self._active[request].choice() for request in catching_up]
        scoring = [
            (self._active[request], score)
            for order, (request, count) in enumerate(step.tokens.items())
            if (score := self._active[request].score(order, count)) is not None
        ]
        result = self._runner.run(step.tokens, choices, [score for _, score in scoring])
        for (active, _), logprobs in zip(scoring, result.scored, strict=True):
            active.scored(logprobs)
        return result.sampled

    def _count(self, record: StepRecord, now_s: float) -> None:
        self._pace = self._pace.after(record.seconds, record.prefill_tokens, record.decode_tokens)
        self._stats = replace(
            self._stats,
            preemptions=self._stats.preemptions + record.preemptions,
            recomputed_tokens=self._stats.recomputed_tokens + record.recomputed_tokens,
            last_token_at_s=now_s if record.sampled_tokens else self._stats.last_token_at_s,
        )

    def _deliver(self, active: ActiveRequest, sampled: Sampled, now_s: float) -> None:
        active.sampled(sampled.token, now_s)
        reason = active.finish_reason(sampled.token)
        if reason is not None:
            last = sampled if active.is_shown(sampled.token, reason) else None
            self.finish(active, reason, last)
        elif not active.tell(_news(active, sampled)):
            self.finish(active, "error", error="nobody could take the tokens")


def _news(active: ActiveRequest, sampled: Sampled | None) -> TokenEvent:
    tokens = () if sampled is None else (sampled.token,)
    logprobs = () if sampled is None or sampled.logprob is None else (sampled.logprob,)
    return TokenEvent(
        active.name,
        tokens,
        logprobs=logprobs,
        cached_tokens=active.request.found_tokens or 0,
        prompt_logprobs=active.take_prompt_logprobs(),
    )
