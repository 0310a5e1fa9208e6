"""Story: what cannot work is refused at once, with the field, the value and what is allowed."""

import copy
from typing import Any

import pytest
import yaml

from e2e.cluster.progress import CannotContinue
from e2e.models import example
from e2e.world import World


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        pytest.param("scaling.minReplicas", 5, "spec.scaling.minReplicas", id="least above most"),
        pytest.param("quantization", "int3", "Int8", id="unknown quantization"),
        pytest.param("model.source", "file:///etc/passwd", "pvc://claim/path", id="local file"),
        pytest.param("targets.timeToFirstToken", "soon", "timeToFirstToken", id="not a duration"),
        pytest.param("replicas", 2, "scaling.mode is Manual", id="replicas in mode Auto"),
        pytest.param("scalling", {}, 'unknown field "spec.scalling"', id="misspelt field"),
    ],
)
def test_a_bad_spec_is_refused(world: World, path: str, value: Any, complaint: str) -> None:
    bad = copy.deepcopy(example())
    bad["metadata"]["name"] = "bad"
    place = bad["spec"]
    *above, last = path.split(".")
    for key in above:
        place = place[key]
    place[last] = value
    with pytest.raises(CannotContinue) as refusal:
        world.kubectl("create", "-n", world.namespace, "-f", "-", input_text=yaml.safe_dump(bad))
    assert complaint in str(refusal.value)
