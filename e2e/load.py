"""A stream of chat requests at a given rate, and what its clients saw.

Open loop: requests come when the rate says so, whether or not earlier ones have been answered, as
the requests of many people do.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp

LONG_ANSWERS = (
    "Explain why the sky is blue.",
    "Tell me a story about a fox and a crow.",
)
PROMPTS = (
    *LONG_ANSWERS,
    "What is the capital of France?",
    "Name three animals that live in the sea.",
    "Write a greeting for a new neighbour.",
)


@dataclass(frozen=True)
class Answer:
    """What one client saw.

    sent_s, ended_s   seconds on the monotonic clock
    first_token_s     seconds from the request to the first token; None: there was none
    tokens            output tokens, as the usage says
    failure           what went wrong; None for a stream that came to its proper end
    """

    sent_s: float
    ended_s: float
    first_token_s: float | None
    tokens: int
    text: str
    failure: str | None

    @property
    def per_token_s(self) -> float | None:
        """Mean seconds between output tokens; None for fewer than two."""
        if self.first_token_s is None or self.tokens < 2:
            return None
        return (self.ended_s - self.sent_s - self.first_token_s) / (self.tokens - 1)


@dataclass(frozen=True)
class Client:
    """How to ask: the gateway's URL without /v1, the served name, and how much to answer."""

    session: aiohttp.ClientSession
    url: str
    model: str
    max_tokens: int = 32
    timeout_s: float = 120.0

    async def ask(self, prompt: str) -> Answer:
        """Send one streaming chat request and read it to its end; never raises for a failure."""
        stream = _Stream()
        sent_s = time.monotonic()
        try:
            async with asyncio.timeout(self.timeout_s):
                failure = await self._read(prompt, stream)
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            failure = f"{type(error).__name__}: {error}"
        first_s = None if stream.first_at_s is None else stream.first_at_s - sent_s
        return Answer(
            sent_s, time.monotonic(), first_s, stream.tokens, "".join(stream.text), failure
        )

    async def seconds_alone(self) -> float:
        """Return how long a whole answer takes when nobody else asks: what this machine can do."""
        answers = [await self.ask(prompt) for prompt in LONG_ANSWERS]
        return sum(answer.ended_s - answer.sent_s for answer in answers) / len(answers)

    async def _read(self, prompt: str, stream: "_Stream") -> str | None:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with self.session.post(f"{self.url}/v1/chat/completions", json=body) as response:
            if response.status != 200:
                return f"{response.status}: {(await response.text())[:300]}"
            async for event in _events(response):
                if event == "[DONE]":
                    return None
                if failure := stream.take(json.loads(event)):
                    return failure
        return "the stream ended without [DONE]"


@dataclass
class _Stream:
    """What has been read of one answer so far."""

    first_at_s: float | None = None
    tokens: int = 0
    text: list[str] = field(default_factory=list)

    def take(self, chunk: dict[str, object]) -> str | None:
        """Add one chunk; return the failure it reports, if any."""
        if error := chunk.get("error"):
            return f"in the stream: {error}"
        if usage := chunk.get("usage"):
            assert isinstance(usage, dict)
            self.tokens = usage["completion_tokens"]
        choices = chunk.get("choices") or []
        assert isinstance(choices, list)
        for choice in choices:
            if text := choice["delta"].get("content"):
                self.first_at_s = self.first_at_s or time.monotonic()
                self.text.append(text)
        return None


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    async for line in response.content:
        if line.startswith(b"data:"):
            yield line[5:].strip().decode()


class Load:
    """Requests at `requests_per_s`, while `sending`; every answer is kept.

    The rate may be set at any time. `most_open` bounds what a hopeless overload can pile up here:
    requests beyond it are not sent, but counted in `unsent`.
    """

    def __init__(self, client: Client, requests_per_s: float = 0.0, most_open: int = 400) -> None:
        self.requests_per_s = requests_per_s
        self.answers: list[Answer] = []
        self.sent = 0
        self.unsent = 0
        self._client = client
        self._most_open = most_open
        self._open: set[asyncio.Task[None]] = set()

    @property
    def open_requests(self) -> int:
        """Requests sent and not yet ended."""
        return len(self._open)

    @property
    def failures(self) -> list[str]:
        """What went wrong, one entry for each failed request."""
        return [answer.failure for answer in self.answers if answer.failure is not None]

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send while the block runs; afterwards wait for the requests that are still open."""
        task = asyncio.create_task(self._send_at_rate())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await asyncio.gather(*self._open)

    async def _send_at_rate(self) -> None:
        due_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            if self.requests_per_s <= 0:
                due_s = now_s
            elif now_s >= due_s:
                # After a stall of this process the past is not made up for.
                due_s = max(due_s + 1 / self.requests_per_s, now_s - 1.0)
                self._send()
                continue
            await asyncio.sleep(min(0.05, max(0.0, due_s - now_s)) or 0.05)

    def _send(self) -> None:
        if len(self._open) >= self._most_open:
            self.unsent += 1
            return
        task = asyncio.create_task(self._one(PROMPTS[self.sent % len(PROMPTS)]))
        self.sent += 1
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _one(self, prompt: str) -> None:
        self.answers.append(await self._client.ask(prompt))

    def since(self, seconds: float) -> list[Answer]:
        """Return the answers that ended within the last `seconds`."""
        oldest_s = time.monotonic() - seconds
        return [answer for answer in self.answers if answer.ended_s >= oldest_s]


def percentile(values: Iterable[float | None], share: float) -> float | None:
    """Return the smallest value that at least `share` (0-1) of the values do not exceed."""
    known: Sequence[float] = sorted(value for value in values if value is not None)
    return known[max(0, math.ceil(share * len(known)) - 1)] if known else None
