from pathlib import Path

import pytest

from llm_engine.contract.inspection import Failure, FailureReason, ModelRefused
from llm_engine.server.failure import failure_of, leave_word


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        pytest.param(
            ModelRefused(FailureReason.INVALID_MODEL, "no config.json"),
            "InvalidModel",
            "no config.json",
            id="a model refused keeps its reason",
        ),
        pytest.param(MemoryError(), "OutOfMemory", "memory ran out", id="no memory on the host"),
        pytest.param(OutOfMemoryError("CUDA"), "OutOfMemory", "CUDA", id="no memory on the GPU"),
        pytest.param(
            ValueError("cannot listen on port 1"),
            "StartFailed",
            "cannot listen on port 1",
            id="an option that will not do speaks for itself",
        ),
        pytest.param(KeyError("x"), "StartFailed", "KeyError: 'x'", id="anything else"),
    ],
)
def test_every_error_has_a_reason(error: Exception, reason: str, message: str) -> None:
    failure = failure_of(error)
    assert failure.reason == reason
    assert message in failure.message


def test_a_failure_is_left_where_the_environment_says(tmp_path: Path) -> None:
    failure = Failure(reason=FailureReason.START_FAILED, message="x" * 9000)
    path = tmp_path / "log"
    leave_word(failure, {"LLM_ENGINE_TERMINATION_LOG": str(path)})
    assert len(path.read_bytes()) <= 4096
    assert Failure.model_validate_json(path.read_text()).reason == FailureReason.START_FAILED


def test_a_place_that_cannot_be_written_is_no_second_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = Failure(reason=FailureReason.START_FAILED, message="x")
    leave_word(failure, {"LLM_ENGINE_TERMINATION_LOG": str(tmp_path)})
    assert "could not write" in capsys.readouterr().err
