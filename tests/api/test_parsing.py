"""From raw objects to typed ones: defaults, words for what is wrong, no crash on odd objects."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_engine.contract.quantization import Quantization
from llm_engine.contract.shape import ModelShape
from llm_operator.api.deployment_spec import LLMDeploymentSpec, ScalingMode
from llm_operator.api.deployment_status import (
    MESSAGE_LENGTH,
    Condition,
    ConditionStatus,
    ConditionType,
    LLMDeploymentStatus,
    Observed,
    StatusShape,
)
from llm_operator.api.parsing import (
    InvalidObject,
    parse_accelerator_class,
    parse_deployment,
    parse_metadata,
    parse_status,
)

SOURCE = "pvc://models/smollm2"


def raw(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "smollm2", "namespace": "default", "uid": "u", "generation": 3},
        "spec": {"model": {"source": SOURCE}, **spec},
    }


def test_the_shortest_spec_has_the_documented_defaults() -> None:
    deployment = parse_deployment(raw())

    spec = deployment.spec
    assert deployment.served_name == "smollm2"
    assert spec.quantization is Quantization.NONE
    assert spec.scaling.mode is ScalingMode.AUTO
    assert (spec.min_replicas, spec.max_replicas, spec.idle_after_s) == (1, 1, 600)
    assert (spec.scaling.scale_down.stabilization_s, spec.scaling.scale_down.max_step) == (300, 1)
    assert (spec.targets.percentile, spec.drain.timeout_s) == (95, 60)


@pytest.mark.parametrize(
    ("scaling", "least", "most"),
    [
        ({"minReplicas": 0}, 0, 1),
        ({"minReplicas": 3}, 3, 3),
        ({"maxReplicas": 4}, 1, 4),
        ({"minReplicas": 2, "maxReplicas": 2}, 2, 2),
    ],
    ids=["to zero", "only fewest", "only most", "fixed"],
)
def test_replicas_stay_between(scaling: dict[str, Any], least: int, most: int) -> None:
    spec = parse_deployment(raw(scaling=scaling)).spec

    assert (spec.min_replicas, spec.max_replicas) == (least, most)


def test_numbers_come_in_base_units() -> None:
    spec = parse_deployment(
        raw(
            targets={"timeToFirstToken": "500ms", "maxCostPerHour": "12.00"},
            scaling={"minReplicas": 0, "idleAfter": "1h"},
        )
    ).spec

    assert spec.targets.time_to_first_token_s == 0.5
    assert spec.targets.max_cost_per_h == Decimal("12.00")
    assert spec.idle_after_s == 3600


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ({"metadata": {"name": "x"}}, "spec.model: Field required"),
        ({"spec": []}, "spec: "),
        (raw(model="smollm2"), "spec.model: "),
        (raw(model={"source": "file:///etc/passwd"}), "spec.model.source: must be hf://"),
        (
            raw(quantization="int3"),
            "spec.quantization: Input should be 'None', 'Int8', 'Int4' or 'FP8', not",
        ),
        (raw(targets={"percentile": 120}), "spec.targets.percentile: "),
        (raw(scaling={"minReplicas": 5, "maxReplicas": 2}), "minReplicas must be at most 2, not 5"),
        (
            raw(model={"source": SOURCE, "secretRef": {"name": "token"}}),
            "secretRef may be set only where source is hf://",
        ),
        (raw(replicas=2), "replicas may be set only where scaling.mode is Manual"),
        (raw(scaling={"mode": "Manual", "minReplicas": 1}), "may not be set in mode Manual"),
        (raw(scaling={"idleAfter": "5m"}), "only where scaling.minReplicas is 0"),
        (raw(template={"tolerations": [{"effect": "Sometimes"}]}), "spec.template.tolerations.0."),
    ],
)
def test_an_invalid_object_is_told_in_words(odd: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidObject) as refusal:
        parse_deployment(odd)

    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_every_fault_is_told() -> None:
    with pytest.raises(InvalidObject) as refusal:
        parse_deployment(raw(quantization="int3", drain={"timeout": "9h"}))

    assert "spec.quantization" in str(refusal.value)
    assert "spec.drain.timeout: must be from 0s to 1h, not 9h" in str(refusal.value)


def test_fields_of_a_newer_version_stop_nobody() -> None:
    assert parse_deployment(raw(tomorrow={"x": 1})).spec == parse_deployment(raw()).spec


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
STATUS_PART = st.sampled_from(list(LLMDeploymentStatus.model_json_schema()["properties"]))


@given(st.dictionaries(STATUS_PART, JSON) | JSON)
def test_an_odd_status_is_read_as_far_as_it_goes(status: Any) -> None:
    assert isinstance(parse_status({"status": status}), LLMDeploymentStatus)


def test_a_good_part_of_a_bad_status_is_kept() -> None:
    status = parse_status({"status": {"conditions": "gone", "scaling": {"wants": [1]}}})

    assert status.scaling == {"wants": [1]}
    assert status.conditions == []


@given(JSON)
def test_an_odd_spec_is_refused_or_read_but_never_crashes(spec: Any) -> None:
    with pytest.raises(InvalidObject):
        parse_deployment({"metadata": {"name": "a"}, "spec": spec})


def test_metadata_needs_no_spec() -> None:
    metadata = parse_metadata({"metadata": {"name": "a", "deletionTimestamp": "2026-01-31"}})

    assert (metadata.name, metadata.deleting, metadata.generation) == ("a", True, 0)


def test_an_accelerator_class_without_status_has_no_nodes_yet() -> None:
    parsed = parse_accelerator_class(
        {"metadata": {"name": "l4"}, "spec": {"resourceName": "nvidia.com/gpu", "memory": "24G"}}
    )

    assert (parsed.name, parsed.spec.memory_bytes, parsed.status.nodes) == ("l4", 24 * 10**9, None)


DURATIONS_S = st.integers(min_value=1, max_value=60_000).map(lambda ms: ms / 1000)
SPECS = st.fixed_dictionaries(
    {"model": st.fixed_dictionaries({"source": st.just(SOURCE)})},
    optional={
        "quantization": st.sampled_from(["None", "Int8", "Int4", "FP8"]),
        "targets": st.fixed_dictionaries(
            {},
            optional={
                "time_to_first_token_s": DURATIONS_S,
                "time_per_output_token_s": DURATIONS_S,
                "percentile": st.integers(50, 99),
                "max_cost_per_h": st.decimals(
                    min_value="0.01", max_value=9999, places=2, allow_nan=False
                ),
            },
        ),
        "scaling": st.fixed_dictionaries(
            {"min_replicas": st.integers(0, 5), "max_replicas": st.integers(5, 1000)}
        ),
        "drain": st.fixed_dictionaries({"timeout_s": st.integers(0, 3600).map(float)}),
    },
)


@given(SPECS)
def test_a_spec_survives_the_wire(parts: dict[str, Any]) -> None:
    spec = LLMDeploymentSpec.model_validate(parts)

    assert LLMDeploymentSpec.model_validate(spec.to_wire()) == spec


def test_a_status_is_written_as_kubernetes_spells_things() -> None:
    shape = ModelShape(
        architecture="llama", layers=2, hidden_size=8, intermediate_size=16, query_heads=2,
        kv_heads=1, head_dim=4, vocabulary=32, context_tokens=64, tied_embeddings=True,
    )  # fmt: skip

    assert StatusShape(**shape.model_dump()).model_dump(by_alias=True)["hiddenSize"] == 8
    assert Observed(time_to_first_token_s=0.4123, requests_per_s=2.4567).to_wire() == {
        "timeToFirstToken": "412ms",
        "requestsPerSecond": "2.46",
    }


def test_words_that_are_too_long_lose_their_end() -> None:
    condition = Condition(
        type=ConditionType.READY,
        status=ConditionStatus.FALSE,
        reason="StartFailed",
        message="x" * 10_000,
        last_transition_time=datetime(2026, 1, 31, tzinfo=UTC),
    )

    assert len(condition.message) == MESSAGE_LENGTH
    assert condition.message.endswith("x…")
