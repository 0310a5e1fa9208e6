"""Drift: what somebody else changed is found, what only they set is left to them."""

import copy
from typing import Any

import pytest

from llm_operator.reconcile.drift import fingerprint, has_drifted, signed

WANTED = signed(
    {
        "kind": "Deployment",
        "metadata": {"name": "a", "labels": {"x": "1"}},
        "spec": {
            "replicas": 2,
            "args": ["serve", "--port", "8000"],
            "containers": [
                {
                    "name": "engine",
                    "env": [{"name": "HOME", "value": "/tmp"}],
                    "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}},
                    "emptyDir": {},
                }
            ],
        },
    }
)


def _as_stored() -> dict[str, Any]:
    """What an API server makes of WANTED: defaults, canonical quantities, a status."""
    return {
        "kind": "Deployment",
        "metadata": {**copy.deepcopy(WANTED["metadata"]), "uid": "u", "resourceVersion": "7"},
        "spec": {
            "replicas": 2,
            "paused": False,
            "args": ["serve", "--port", "8000"],
            "containers": [
                {
                    "name": "engine",
                    "terminationMessagePath": "/dev/termination-log",
                    "env": [{"name": "HOME", "value": "/tmp"}],
                    "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}},
                    "emptyDir": {},
                }
            ],
        },
        "status": {"replicas": 2},
    }


def test_defaults_and_canonical_quantities_are_no_drift() -> None:
    assert not has_drifted(WANTED, _as_stored())


def _engine(stored: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = stored["spec"]["containers"][0]
    return container


@pytest.mark.parametrize(
    ("change", "drifts"),
    [
        pytest.param(lambda s: s["spec"].update(replicas=5), True, id="another number"),
        pytest.param(lambda s: s["spec"].update(replicas=2.0), True, id="another type"),
        pytest.param(lambda s: s["spec"]["args"].append("--api-key"), True, id="one more argument"),
        pytest.param(lambda s: s["spec"].pop("args"), True, id="a field taken away"),
        pytest.param(lambda s: s["metadata"]["labels"].clear(), True, id="a label taken away"),
        pytest.param(lambda s: s["metadata"].pop("annotations"), True, id="no fingerprint"),
        pytest.param(
            lambda s: _engine(s)["env"][0].update(value="/root"),
            True,
            id="an entry of a named list",
        ),
        pytest.param(lambda s: _engine(s)["env"].clear(), True, id="an entry taken away"),
        pytest.param(
            lambda s: _engine(s)["resources"]["requests"].update(memory="2Gi"),
            True,
            id="another quantity",
        ),
        pytest.param(
            lambda s: s["spec"]["containers"].append({"name": "sidecar"}),
            False,
            id="a container that somebody injects",
        ),
        pytest.param(
            lambda s: s["metadata"]["labels"].update(team="search"), False, id="a label of theirs"
        ),
        pytest.param(lambda s: s.update(status={}), False, id="the status"),
    ],
)
def test_drift_is(change: Any, drifts: bool) -> None:
    stored = _as_stored()
    change(stored)
    assert has_drifted(WANTED, stored) is drifts


def test_a_field_that_is_wanted_no_more_is_drift() -> None:
    fewer = {**WANTED, "metadata": {"name": "a"}}
    assert has_drifted(signed(fewer), _as_stored())


def test_the_fingerprint_knows_no_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})


@pytest.mark.parametrize("odd", [None, 3, "text", [], {"spec": None}, {"spec": {"containers": 1}}])
def test_odd_objects_are_drift_and_no_crash(odd: Any) -> None:
    assert has_drifted(WANTED, odd)
