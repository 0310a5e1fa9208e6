"""How the gateway says no: every error is an OpenAI-style error object."""

import json
from enum import StrEnum


class ErrorType(StrEnum):
    """The `type` of an error object: whose fault it is."""

    INVALID_REQUEST = "invalid_request_error"
    RATE_LIMIT = "rate_limit_error"
    SERVER = "server_error"


class Refusal(Exception):
    """An answer with an error object instead of tokens.

    retry_after_s  when the client may come again; None where coming again will not help
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.allow = allow

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to this refusal."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.allow is not None:
            headers["Allow"] = self.allow
        return headers

    @property
    def body(self) -> bytes:
        """The error object as JSON; ASCII only, whatever a client put into a name."""
        error = {
            "message": self.message,
            "type": self._type,
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error}).encode()

    @property
    def event(self) -> bytes:
        """The error object as the last event of a stream that has already begun."""
        return b"data: " + self.body + b"\n\n"

    @property
    def _type(self) -> ErrorType:
        if self.status == 429:
            return ErrorType.RATE_LIMIT
        return ErrorType.SERVER if self.status >= 500 else ErrorType.INVALID_REQUEST


def invalid(message: str, param: str | None = None, code: str = "invalid_request") -> Refusal:
    """Return the refusal of a request that cannot be understood."""
    return Refusal(400, code, message, param=param)


def model_not_found(model: str) -> Refusal:
    """Return the refusal of a model that no LLMDeployment serves, or no longer serves."""
    shown = model if len(model) <= 200 else model[:200] + "…"
    message = f"The model {shown!r} does not exist. GET /v1/models lists the models there are."
    return Refusal(404, "model_not_found", message, param="model")
