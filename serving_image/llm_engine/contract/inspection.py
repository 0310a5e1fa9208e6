"""What `llm-engine inspect` reports, and how the engine names a failure.

Both travel through the container's termination message, which Kubernetes cuts at 4096 bytes.
"""

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from llm_engine.contract.memory_plan import MemoryPlan
from llm_engine.contract.shape import ModelShape

TERMINATION_MESSAGE_BYTES: Final = 4096
"""Kubernetes keeps no more of a termination message."""


class FailureReason(StrEnum):
    """Why a model cannot be served: one CamelCase word, used as a condition's reason."""

    MODEL_NOT_FOUND = "ModelNotFound"
    INVALID_MODEL = "InvalidModel"
    UNSUPPORTED_MODEL = "UnsupportedModel"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    ACCESS_DENIED = "AccessDenied"
    OUT_OF_MEMORY = "OutOfMemory"
    START_FAILED = "StartFailed"
    ENGINE_FAILED = "EngineFailed"  # while serving


class Failure(BaseModel):
    """A named failure; the message says what is wrong and what to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: FailureReason
    message: str


class Inspection(BaseModel):
    """What is known of a model from its configuration and weight headers alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: ModelShape | None = None
    file_bytes: int | None = Field(default=None, description="Bytes of all weight files")
    file_format: str | None = Field(default=None, description="safetensors or gguf")
    file_dtype: str | None = Field(default=None, description="Most frequent dtype in the files")
    plan: MemoryPlan | None = Field(default=None, description="Where the bytes go, if asked")
    failure: Failure | None = None


def termination_message(report: BaseModel) -> str:
    """Render a report as the one JSON line that fits a termination message.

    A failure's message that would be too long loses its middle, never the JSON around it.
    """
    text = report.model_dump_json(exclude_none=True)
    excess = len(text.encode()) - TERMINATION_MESSAGE_BYTES
    if excess <= 0:
        return text
    failure = report if isinstance(report, Failure) else getattr(report, "failure", None)
    if not isinstance(failure, Failure):
        raise ValueError(f"a report of {len(text)} characters does not fit a termination message")
    keep = max(0, len(failure.message) - excess - 16) // 2
    short = failure.message[:keep] + " […] " + failure.message[len(failure.message) - keep :]
    cut = failure.model_copy(update={"message": short})
    if report is failure:
        return cut.model_dump_json(exclude_none=True)
    return report.model_copy(update={"failure": cut}).model_dump_json(exclude_none=True)


class ModelRefused(Exception):
    """A model that cannot be inspected or served, with the reason a condition can carry."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def failure(self) -> Failure:
        """Return what a report carries."""
        return Failure(reason=self.reason, message=self.message)
