"""Why a model cannot be served, in the words of the contract."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from llm_engine.contract.inspection import Failure, FailureReason, termination_message

EXIT_CODE: Final = 3
"""Exit code of a process that says in its termination message what went wrong."""


def failure_of(error: BaseException) -> Failure:
    """Return what an exception during the start means to an operator."""
    named = getattr(error, "failure", None)
    if isinstance(named, Failure):
        return named
    # torch's OutOfMemoryError, known by name: torch may be what failed to load.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        message = f"memory ran out while loading ({error}); give the replica more, or quantize"
        return Failure(reason=FailureReason.OUT_OF_MEMORY, message=message)
    # An option that will not do says so in its own words; anything else is named by its type.
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return Failure(reason=FailureReason.START_FAILED, message=f"{kind}{error}")


def say(failure: Failure) -> None:
    """Tell a person on stderr, in one line."""
    sys.stderr.write(f"llm-engine: {failure.reason}: {failure.message}\n")


def leave_word(failure: Failure, environment: Mapping[str, str]) -> None:
    """Leave the failure where Kubernetes picks it up, if there is such a place."""
    path = Path(environment.get("LLM_ENGINE_TERMINATION_LOG", "/dev/termination-log"))
    # Outside a container there is no such file, and /dev is no place to make one.
    if path.exists() or "LLM_ENGINE_TERMINATION_LOG" in environment:
        try:
            path.write_text(termination_message(failure))
        except OSError as error:
            sys.stderr.write(f"llm-engine: could not write {path}: {error}\n")
