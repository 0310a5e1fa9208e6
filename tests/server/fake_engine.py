"""A small deterministic engine behind the same seam as the real one: one token a byte."""

import codecs
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm_engine.contract.shape import ModelShape
from llm_engine.engine.messages import (
    EngineStats,
    EngineStopped,
    FinishReason,
    GenerationRequest,
    RequestTimes,
    StepRecord,
    TokenEvent,
)
from llm_engine.sampling.sampled import TokenLogprob
from llm_engine.tokenizer.chat_template import TemplateRejected

END = 256
VOCABULARY = 258
BLOCK_TOKENS = 16
BLOCKS = 64


SHAPE = ModelShape(
    architecture="fake",
    layers=1,
    hidden_size=1,
    intermediate_size=1,
    query_heads=1,
    kv_heads=1,
    head_dim=1,
    vocabulary=VOCABULARY,
    context_tokens=256,
    tied_embeddings=True,
)


def a_logprob(token: int, top: int | None) -> TokenLogprob:
    """A token is the likeliest one with half the chance; the letters after it share the rest."""
    others = tuple(((token + i) % END, -0.5 - i) for i in range(top or 0))
    return TokenLogprob(token, -0.5, others)


class ByteDetokenizer:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, tokens: Sequence[int]) -> str:
        return self._decoder.decode(bytes(token for token in tokens if token < END))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class ByteTokenizer:
    chat_template: str | None = None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        del add_special_tokens
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token < END).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < END else b""

    def detokenizer(self) -> ByteDetokenizer:
        return ByteDetokenizer()

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], **options: Any
    ) -> list[int]:
        if messages[0]["content"] == "unruly":
            raise TemplateRejected("conversation roles must alternate")
        self.options = options
        return self.encode("".join(f"<{m['role']}>{m['content']}\n" for m in messages))


class _Request:
    def __init__(self, request: GenerationRequest, on_event: Callable[[TokenEvent], None]) -> None:
        self.request = request
        self.on_event = on_event
        self.output_tokens = 0
        self.submitted_s = self.first_s = time.monotonic()

    def times(self) -> RequestTimes:
        prompt = len(self.request.prompt_tokens)
        prefill_s, decode_s = self.first_s - self.submitted_s, time.monotonic() - self.first_s
        return RequestTimes(
            self.submitted_s, 0.0, prefill_s, decode_s, prompt, self.output_tokens, 0
        )


class FakeEngine:
    """Says `answer` to everybody, one byte a step, then stops.

    hold     while cleared, no step is made
    fails    while set, every request ends as an error with its first token
    """

    def __init__(
        self,
        answer: str = "Paris é 🙂 is the capital.",
        max_context_tokens: int = 256,
        max_concurrency: int = 4,
        step_s: float = 0.001,
    ) -> None:
        self.tokenizer = ByteTokenizer()
        self.shape = SHAPE
        self.dtype = "float32"
        self.max_context_tokens = max_context_tokens
        self.healthy = True
        self.on_step: Callable[[StepRecord], None] | None = None
        self.on_failure: Callable[[str], None] | None = None
        self.hold = threading.Event()
        self.hold.set()
        self.fails = False
        self.seen: list[GenerationRequest] = []
        self.aborted: list[str] = []
        self._script = [*answer.encode(), END]
        self._step_s = step_s
        self._max_concurrency = max_concurrency
        self._requests: dict[str, _Request] = {}
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self.hold.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def submit(self, request: GenerationRequest, on_event: Callable[[TokenEvent], None]) -> None:
        if self._stopping:
            raise EngineStopped
        with self._lock:
            self.seen.append(request)
            self._requests[request.request_id] = _Request(request, on_event)
        self._work.set()

    def abort(self, request_id: str) -> None:
        with self._lock:
            self.aborted.append(request_id)
            request = self._requests.pop(request_id, None)
        if request is not None:
            request.on_event(TokenEvent(request_id, (), "abort", request.times()))

    def stats(self) -> EngineStats:
        with self._lock:
            requests = list(self._requests.values())
        running = requests[: self._max_concurrency]
        tokens = [len(r.request.prompt_tokens) + r.output_tokens for r in running]
        return EngineStats(
            running=len(running),
            waiting=len(requests) - len(running),
            kv_usage=sum(-(-count // BLOCK_TOKENS) for count in tokens) / BLOCKS,
            blocks=BLOCKS,
            block_tokens=BLOCK_TOKENS,
            tokens_in_flight=sum(tokens),
            max_concurrency=self._max_concurrency,
        )

    def _run(self) -> None:
        while not self._stopping:
            self._work.wait()
            self.hold.wait()
            with self._lock:
                running = list(self._requests.values())[: self._max_concurrency]
                if not running:
                    self._work.clear()
                    continue
            prompts = sum(len(r.request.prompt_tokens) for r in running if not r.output_tokens)
            for request in running:
                self._advance(request)
            if self.on_step is not None:
                self.on_step(StepRecord(0.001, prompts, 0, len(running), len(running), 0, 0))
            time.sleep(self._step_s)

    def _advance(self, request: _Request) -> None:
        sampling = request.request.sampling
        token = self._script[request.output_tokens % len(self._script)]
        request.output_tokens += 1
        if request.output_tokens == 1:
            request.first_s = time.monotonic()
        reason: FinishReason | None = None
        tokens: tuple[int, ...] = (token,)
        if self.fails:
            reason = "error"
        elif (token == END and not sampling.ignore_eos) or token in sampling.stop_token_ids:
            reason, tokens = "stop", ()
        elif request.output_tokens >= sampling.max_tokens:
            reason = "length"
        times = None
        if reason is not None:
            times = request.times()
            with self._lock:
                self._requests.pop(request.request.request_id, None)
        logprobs = tuple(a_logprob(token, sampling.top_logprobs) for token in tokens)
        asked = sampling.top_logprobs is not None
        name = request.request.request_id
        prompt_logprobs: tuple[TokenLogprob, ...] = ()
        if request.output_tokens == 1 and sampling.prompt_logprobs is not None:
            known = request.request.prompt_tokens[1:]
            prompt_logprobs = tuple(a_logprob(one, sampling.prompt_logprobs) for one in known)
        event = TokenEvent(
            name,
            tokens,
            reason,
            times,
            logprobs=logprobs if asked else (),
            prompt_logprobs=prompt_logprobs,
        )
        request.on_event(event)
