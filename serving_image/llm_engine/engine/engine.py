"""The engine as others see it: submit, abort, watch. Its thread steps in the background."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from llm_engine.contract.arguments import AttentionName
from llm_engine.contract.quantization import Quantization
from llm_engine.contract.shape import ModelShape
from llm_engine.engine.active import ActiveRequest
from llm_engine.engine.loaded import Loaded, RunnerLost
from llm_engine.engine.messages import (
    EngineStats,
    EngineStopped,
    FinishReason,
    GenerationRequest,
    StepRecord,
    TokenEvent,
)
from llm_engine.engine.stepper import Stepper
from llm_engine.sampling.grammar import Matcher

if TYPE_CHECKING:
    from llm_engine.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)

News = TypeVar("News")

STUCK_AFTER_S: Final = 10.0
"""How long a step may go on without the rank that it waits for."""
FAILED_STEPS_ALLOWED: Final = 2
"""One more failed step in a row means that the engine, not a request, is broken."""


class Engine:
    """One model, served by one background thread. All methods are thread-safe.

    keeps_prefixes  whether requests share what was computed of a common beginning

    All hooks are called from the engine's thread; None: nobody is told.

    on_step     told of every step
    on_publish  told the state whenever it has changed: after a step, an abort, the end
    on_failure  told once why the engine serves no more, after its requests were
    """

    def __init__(
        self, loaded: Loaded, tpot_target_s: float | None = None, keeps_prefixes: bool = True
    ) -> None:
        self.tokenizer: Tokenizer = loaded.tokenizer
        self.shape: ModelShape = loaded.shape
        self.max_context_tokens = loaded.max_context_tokens
        self.device = loaded.device
        self.dtype = loaded.dtype
        self.on_step: Callable[[StepRecord], None] | None = None
        self.on_publish: Callable[[EngineStats], None] | None = None
        self.on_failure: Callable[[str], None] | None = None
        self._runner = loaded.runner
        self._grammars = loaded.grammars
        self._other_ranks = loaded.other_ranks
        self._stepper = Stepper(
            loaded.runner,
            loaded.limits,
            loaded.max_context_tokens,
            tpot_target_s,
            self._forget,
            keeps_prefixes,
        )
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        # Shared between the callers and the thread, under the lock.
        self._wake = threading.Condition()
        self._state: Literal["new", "running", "stopped"] = "new"
        self._known: dict[str, ActiveRequest] = {}
        self._submitted: list[ActiveRequest] = []
        self._aborted: list[ActiveRequest] = []
        self._lost: str | None = None
        self._stats = self._stepper.stats()

    @classmethod
    def load(  # noqa: PLR0913 (each is a flag of the command line)
        cls,
        model: str,
        *,
        quantization: Quantization = Quantization.NONE,
        device: str = "auto",
        dtype: str = "auto",
        attention: AttentionName = AttentionName.AUTO,
        max_context_tokens: int | None = None,
        kv_cache_bytes: int | None = None,
        tpot_target_s: float | None = None,
        keeps_prefixes: bool = True,
        tensor_parallel: int = 1,
        on_phase: Callable[[str], None] = lambda _phase: None,
    ) -> "Engine":
        """Load a model and compute a first token with it; `start` then serves requests.

        on_phase  told each phase as it begins: resolve, import, load, warmup

        Raises ModelRefused for a model that will not do, ValueError for options that will not.
        """
        from llm_engine.engine.loading import LoadOptions, load

        options = LoadOptions(
            quantization=quantization,
            device=device,
            dtype=dtype,
            attention=attention,
            max_context_tokens=max_context_tokens,
            kv_cache_bytes=kv_cache_bytes,
            tensor_parallel=tensor_parallel,
        )
        return cls(load(model, options, on_phase), tpot_target_s, keeps_prefixes)

    def start(self) -> None:
        """Begin to serve."""
        with self._wake:
            if self._state != "new":
                raise EngineStopped("an engine starts once")
            self._state = "running"
        if self._other_ranks is not None:
            self._other_ranks.watch(self._lose)
        self._thread.start()

    def stop(self) -> None:
        """End every request with "abort" and wait for the thread to end. Idempotent."""
        with self._wake:
            never_started = self._state == "new"
            self._state = "stopped"
            self._wake.notify()
        if never_started:
            self._end_all("abort")
        elif threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def healthy(self) -> bool:
        """Tell whether the thread serves requests."""
        return self._state == "running" and self._thread.is_alive()

    def submit(self, request: GenerationRequest, on_event: Callable[[TokenEvent], None]) -> None:
        """Queue a request; `on_event` is called from the engine's thread, so it must be quick.

        Raises ValueError for a request that can never run, EngineStopped once nothing runs.
        """
        self._check(request)
        active = ActiveRequest(
            request,
            on_event,
            self.tokenizer.eos_tokens,
            self._runner.block_tokens,
            self._runner.windows,
            time.monotonic(),
            self._matcher(request.sampling.grammar),
        )
        with self._wake:
            if self._state == "stopped":
                raise EngineStopped("the engine has stopped")
            if request.request_id in self._known:
                raise ValueError(f"request id {request.request_id!r} is already running")
            self._known[request.request_id] = active
            self._submitted.append(active)
            self._wake.notify()

    def abort(self, request_id: str) -> None:
        """End a request before the next step; an unknown one is fine, since it may have ended."""
        with self._wake:
            active = self._known.get(request_id)
            if active is not None:
                self._aborted.append(active)
                self._wake.notify()

    def stats(self) -> EngineStats:
        """Return the state after the last step, with the requests that came since."""
        with self._wake:
            stats = self._stats
            prompts = [active.request.prompt_tokens for active in self._submitted]
        return replace(
            stats,
            waiting=stats.waiting + len(prompts),
            pending_prefill_tokens=stats.pending_prefill_tokens + sum(prompts),
            tokens_in_flight=stats.tokens_in_flight + sum(prompts),
        )

    def _matcher(self, grammar: str | None) -> Matcher | None:
        """Compile a grammar on the caller's thread; a simulated text follows none."""
        if grammar is None or self._grammars is None:
            return None
        return self._grammars.matcher(grammar)

    def _check(self, request: GenerationRequest) -> None:
        prompt, most = len(request.prompt_tokens), request.sampling.max_tokens
        if prompt < 1 or most < 1:
            raise ValueError(f"{prompt} prompt tokens and max_tokens {most}; both must be positive")
        if prompt + most > self.max_context_tokens:
            raise ValueError(
                f"{prompt} prompt tokens and {most} output tokens exceed the context of "
                f"{self.max_context_tokens}"
            )
        last = self.shape.vocabulary - 1
        biased = [token for token, _ in request.sampling.logit_bias]
        ids = (*request.prompt_tokens, *request.sampling.stop_token_ids, *biased)
        if min(ids) < 0 or max(ids) > last:
            raise ValueError(f"token ids must be 0 to {last}")

    def _lose(self, reason: str) -> None:
        """End the engine: a part of the runner is gone. Called from a thread of the runner."""
        with self._wake:
            self._lost = reason
            self._wake.notify()
        self._thread.join(STUCK_AFTER_S)
        if self._thread.is_alive() and self.on_failure is not None:
            # Its step waits for who is gone, and nothing but the end of the process ends that.
            self.on_failure(f"the engine failed: {reason}")

    # From here on: the engine's thread.

    def _serve(self) -> None:
        failure: str | None = None
        try:
            self._runner.enter_thread()
            failed_steps = 0
            while self._take_in():
                failed_steps = 0 if self._try_step() else failed_steps + 1
                if failed_steps > FAILED_STEPS_ALLOWED:
                    raise RuntimeError(f"{failed_steps} steps in a row failed")
        except Exception as error:
            log.exception("the engine's thread ends")
            failure = f"the engine failed: {error}"
        self._end_all("abort" if failure is None else "error", failure)
        if failure is not None and self.on_failure is not None:
            self.on_failure(failure)

    def _end_all(self, reason: FinishReason, error: str | None = None) -> None:
        with self._wake:
            self._state = "stopped"
            for active in self._submitted:
                self._stepper.add(active)
            self._submitted.clear()
        self._stepper.finish_all(reason, error)
        self._publish()
        if self._other_ranks is not None:
            self._other_ranks.stop()

    def _take_in(self) -> bool:
        """Wait for work; take new requests in and aborted ones out. False ends the loop."""
        with self._wake:
            while not (self._submitted or self._aborted or self._stepper.has_work or self._lost):
                if self._state == "stopped":
                    return False
                self._wake.wait()
            if self._lost is not None:
                raise RunnerLost(self._lost)
            if self._state == "stopped":
                return False
            submitted, self._submitted = self._submitted, []
            aborted, self._aborted = self._aborted, []
            for active in submitted:
                self._stepper.add(active)
            # Published before the lock is let go: nobody may see a request neither here nor there.
            self._stats = self._stepper.stats()
        for active in aborted:
            self._stepper.finish(active, "abort")
        if aborted:
            self._publish()
        return True

    def _try_step(self) -> bool:
        """Step if there is work; a failure ends the requests it may have harmed."""
        if not self._stepper.has_work:
            return True
        try:
            record = self._stepper.step()
        except RunnerLost:
            raise
        except Exception as error:
            log.exception("a step failed")
            self._stepper.finish_running(f"{type(error).__name__}: {error}")
            self._publish()
            return False
        _tell(self.on_step, record)
        self._publish()
        return True

    def _publish(self) -> None:
        stats = self._stepper.stats()
        with self._wake:
            self._stats = stats
        _tell(self.on_publish, stats)

    def _forget(self, name: str) -> None:
        with self._wake:
            del self._known[name]


def _tell(hook: Callable[[News], None] | None, news: News) -> None:
    if hook is None:
        return
    try:
        hook(news)
    except Exception:  # whoever counts steps must not end them
        log.exception("a hook of the engine failed")
