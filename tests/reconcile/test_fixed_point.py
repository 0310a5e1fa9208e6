"""Whatever is observed, a few looks reach a state on which one more look does nothing."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_operator.reconcile.decide import decide
from tests.reconcile.world import World, a_class, a_deployment

SPECS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.fixed_dictionaries(
            {"source": st.sampled_from(["pvc://m/a", "hf://o/n@main", "hf://o/n"])},
            optional={
                "servedName": st.sampled_from(["smollm2", "chat"]),
                "secretRef": st.just({"name": "hf"}),
                "maxContextTokens": st.sampled_from([16, 2048, 8192, 100_000]),
            },
        ),
        "quantization": st.sampled_from(["None", "Int8", "Int4", "FP8", "Int3"]),
        "targets": st.fixed_dictionaries(
            {},
            optional={
                "timePerOutputToken": st.sampled_from(["1ms", "50ms"]),
                "maxCostPerHour": st.sampled_from(["0.01", "0.10", "12.00"]),
            },
        ),
        "scaling": st.sampled_from(
            [
                {"minReplicas": 0, "maxReplicas": 2},
                {"minReplicas": 3, "maxReplicas": 5},
                {"minReplicas": 5, "maxReplicas": 1},
                {"mode": "Manual"},
                {"mode": "Advisory", "maxReplicas": 4},
            ]
        ),
        "replicas": st.sampled_from([None, 0, 2]),
        "drain": st.sampled_from([{"timeout": "0s"}, {"timeout": "90s"}]),
        "template": st.sampled_from(
            [{}, {"labels": {"a": "b"}}, {"resources": {"limits": {"memory": "700Mi"}}}, 7]
        ),
        "hardware": st.sampled_from([{}, {"accelerators": ["cpu"]}, {"accelerators": ["gone"]}]),
    },
)


def without_nones(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if value is not None}


@given(
    specs=st.lists(SPECS, min_size=1, max_size=4),
    inspects=st.lists(st.booleans(), min_size=4, max_size=4),
    vandals=st.lists(st.sampled_from(["Deployment", "Service", "Job", "status"]), max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_a_few_looks_reach_rest(
    specs: list[dict[str, Any]], inspects: list[bool], vandals: list[str]
) -> None:
    world = World(deployment=a_deployment(), classes=[a_class(), a_class("big", memory="64Gi")])
    for spec, inspected in zip(specs, inspects, strict=False):
        world.edit(**without_nones(spec))
        if inspected and world.of_kind("Job"):
            world.inspected()
        assert world.settle() <= 5
        for kind in vandals:
            if kind == "status":
                world.deployment["status"] = {"conditions": "gone", "scaling": 3}
            else:
                world.children.pop((kind, "smollm2-engine"), None)
        assert world.settle() <= 5
    observed = world.observe()
    first = decide(observed, world.settings, world.now_s)
    assert first.at_rest
    assert first == decide(observed, world.settings, world.now_s)
    replicas = [e["spec"]["replicas"] for e in world.of_kind("Deployment")]
    assert all(0 <= count <= 1000 for count in replicas)
