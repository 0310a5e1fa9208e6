"""One log line per request, with sizes and times and never a byte of a prompt."""

import logging
import re
import time
import uuid
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("llm_engine.access")

_QUIET: Final = frozenset({"/metrics"})
"""Scraped every other second: logged at DEBUG."""

_SANE_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


class AccessLog:
    """Logs every request when it is over, and echoes X-Request-Id (or makes one up).

    Handlers add what they know (tokens, finish reason) through `note`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        began_s = time.monotonic()
        request_id = _request_id(scope)
        notes: dict[str, Any] = {}
        scope["llm_engine.notes"] = notes
        status = 499  # as nginx has it: the client left before there was an answer

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode("latin-1")),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            level = logging.DEBUG if scope["path"] in _QUIET else logging.INFO
            fields = {
                "request_id": request_id,
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "seconds": round(time.monotonic() - began_s, 4),
                **notes,
            }
            logger.log(level, "request", extra={"fields": fields})


def note(scope: Scope, **fields: object) -> None:
    """Add fields to the log line of this request; numbers and fixed words only."""
    scope["llm_engine.notes"].update(fields)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text: str = value.decode("latin-1")
            if _SANE_ID.fullmatch(text):
                return text
    return uuid.uuid4().hex
