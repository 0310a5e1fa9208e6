"""Errors as OpenAI's clients expect them. Light: the probes use it before anything is loaded."""

import json
from typing import Final

INVALID_REQUEST: Final = "invalid_request_error"
RATE_LIMIT: Final = "rate_limit_error"
UNAVAILABLE: Final = "service_unavailable_error"
SERVER_ERROR: Final = "server_error"

_TYPE_OF_STATUS: Final = {
    429: RATE_LIMIT,
    500: SERVER_ERROR,
    503: UNAVAILABLE,
}


class ApiError(Exception):
    """A refusal that becomes `{"error": {...}}`; the message says what to do about it.

    retry_after_s  seconds after which trying again makes sense; becomes Retry-After
    close          ask the client to leave this connection: the process is about to end
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers: dict[str, str] = {}
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)
        if close:
            self.headers["Connection"] = "close"

    def body(self) -> bytes:
        """Return the JSON that goes into a response, or into the last event of a stream."""
        error = {
            "message": str(self),
            "type": _TYPE_OF_STATUS.get(self.status, INVALID_REQUEST),
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error}, ensure_ascii=False).encode()


def not_ready(phase: str) -> ApiError:
    """Return the refusal of a request that came before the model was loaded."""
    message = f"the model is not loaded yet (phase: {phase}); try again shortly"
    return ApiError(503, message, code="model_loading", retry_after_s=5)


def crowded(connections: int) -> ApiError:
    """Return the refusal of a request on a connection too many."""
    message = f"more than {connections} connections are open here; try again, or another replica"
    return ApiError(503, message, code="too_many_connections", retry_after_s=1, close=True)


def draining() -> ApiError:
    """Return the refusal of a request that came while the server finishes its last ones."""
    message = "the server is shutting down and takes no new requests; send it to another replica"
    return ApiError(503, message, code="draining", retry_after_s=1, close=True)


def engine_stopped() -> ApiError:
    """Return the refusal of a request that the engine can no longer take."""
    message = "the engine has stopped; send the request to another replica"
    return ApiError(503, message, code="engine_stopped", retry_after_s=1, close=True)
