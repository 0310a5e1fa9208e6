"""One GET of one target's metrics, bounded in time and bytes."""

import os
from http import HTTPStatus
from typing import Final

import aiohttp

from llm_operator.scaling.samples import SCRAPE_TIMEOUT_S

MOST_BYTES: Final = 5_000_000
CHUNK_BYTES: Final = 65_536
_HEADERS: Final = {"Accept": "text/plain", "Accept-Encoding": "identity"}


class Unreachable(Exception):
    """The target gave no metrics; the message says why, in words for a user."""


class NotStarted(Unreachable):
    """The target answers, but is still loading (HTTP 503): no fault, and nothing to read yet."""


def open_session() -> aiohttp.ClientSession:
    """Return a session in which no target waits for another: as many connections as targets."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=SCRAPE_TIMEOUT_S),
        headers=_HEADERS,
        auto_decompress=False,  # a small body cannot become a large one
        trust_env=False,
    )


async def fetch(session: aiohttp.ClientSession, url: str) -> str:
    """Return the text at `url`; raises Unreachable, or of these NotStarted."""
    try:
        async with session.get(url, allow_redirects=False) as response:
            if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
                raise NotStarted("it is still loading")
            if response.status != 200:
                raise Unreachable(f"HTTP {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                body += chunk
                if len(body) > MOST_BYTES:
                    raise Unreachable(f"more than {MOST_BYTES // 1_000_000} MB of metrics")
            return body.decode(errors="replace")
    except TimeoutError:
        raise Unreachable(f"no answer within {SCRAPE_TIMEOUT_S:g} s") from None
    except aiohttp.ClientConnectorError as problem:
        number = problem.os_error.errno
        said = os.strerror(number) if number else str(problem.os_error)
        raise Unreachable(said.lower()) from None
    except aiohttp.ClientError as problem:
        raise Unreachable(str(problem) or type(problem).__name__) from None
