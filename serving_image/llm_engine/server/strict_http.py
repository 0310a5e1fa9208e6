"""Requests that two parsers may read in two ways are refused, before they reach one that guesses.

A gateway in front of us and we must always agree on where a request ends; h11 is more forgiving
than that where RFC 9112 leaves a choice.
"""

import re
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from llm_engine.server.errors import ApiError

MOST_HEAD_BYTES: Final = 32 * 1024

_END: Final = b"\r\n\r\n"
_REQUEST_LINE: Final = re.compile(rb"[!-~]+ [!-~]+ HTTP/1\.[01]")
_BARE_LINE_FEED: Final = re.compile(rb"(?<!\r)\n")
_FOLDED_LINE: Final = re.compile(rb"\r\n[ \t]")
_LENGTH: Final = re.compile(rb"\r\ncontent-length[ \t]*:", re.IGNORECASE)
_ENCODING: Final = re.compile(rb"\r\ntransfer-encoding[ \t]*:", re.IGNORECASE)


def ambiguity(head: bytes) -> str | None:
    """Return what makes a request's head ambiguous, or None; it may be the beginning of one."""
    line, ending, _ = head.partition(b"\r\n")
    if ending and not _REQUEST_LINE.fullmatch(line):
        return "begin with a method, a path and HTTP/1.1, each after one space"
    if _BARE_LINE_FEED.search(head):
        return "a line of the header ends without a carriage return"
    if _FOLDED_LINE.search(head):
        return "a header is folded over several lines"
    if _ENCODING.search(head) and len(_LENGTH.findall(head)) > 0:
        return "give Content-Length or Transfer-Encoding, not both"
    if len(_LENGTH.findall(head)) > 1:
        return "give Content-Length once"
    return None


class StrictHttp(H11Protocol):
    """One connection: uvicorn's, but strict, and with errors in the API's own form."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head = b""

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client; look at them first where a request begins."""
        if self.conn.their_state is h11.IDLE:
            head, end, _ = (self._head + data).lstrip(b"\r\n").partition(_END)
            self._head = b"" if end else head
            if len(head) > MOST_HEAD_BYTES:
                message = f"the header is larger than {MOST_HEAD_BYTES} bytes"
                self._refuse(ApiError(431, message, code="header_too_large"))
                return
            flaw = ambiguity(head + end)
            if flaw is not None:
                self.send_400_response(flaw)
                return
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, and close: nobody knows where the next request begins."""
        self._refuse(ApiError(400, msg, code="invalid_http"))

    def _refuse(self, error: ApiError) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = error.body()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            answer = h11.Response(status_code=error.status, headers=headers)
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
