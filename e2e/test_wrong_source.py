"""Story: a typing error in the model's source is named, soon, and nothing crashes in circles."""

import time

import pytest

from e2e.models import condition
from e2e.world import World

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize(
    ("source", "reason", "words"),
    [
        pytest.param("pvc://models/smolm2.gguf", "ModelNotFound", "smolm2.gguf", id="no such file"),
        pytest.param("pvc://modells/smollm2.gguf", None, "modells", id="no such claim"),
    ],
)
def test_a_wrong_source_is_named_within_15_s(
    world: World, source: str, reason: str | None, words: str
) -> None:
    start_s = time.monotonic()
    wrong = world.apply_example("wrong", model={"source": source})
    try:

        def named() -> bool:
            found = condition(wrong.seen())
            return found["status"] == "False" and words in found["message"]

        wrong.wait("Ready says what is wrong", named, 30)
        found = condition(wrong.seen())
        assert time.monotonic() - start_s < 15, found
        assert reason in (None, found["reason"])

        # Twenty seconds later nothing has been tried over and over.
        time.sleep(20)
        pods = world.kubectl.list(
            "pods", wrong.namespace, f"llm-operator.dev/deployment={wrong.name}"
        )
        statuses = [s for pod in pods for s in pod["status"].get("containerStatuses", [])]
        assert len(pods) <= 2
        assert sum(status["restartCount"] for status in statuses) <= 1
    finally:
        world.delete(wrong)
