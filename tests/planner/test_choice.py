"""The cheapest accelerator in which the model fits, and words for why not the others."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_engine.contract.shape import ModelShape
from llm_operator.api.accelerator import AcceleratorClassSpec, AcceleratorClassStatus
from llm_operator.api.deployment_spec import LLMDeploymentSpec
from llm_operator.api.parsing import AcceleratorClass
from llm_operator.planner.choice import (
    ChoiceReason,
    choose,
    memory_of,
)

SMOLLM2 = ModelShape(
    architecture="llama", layers=30, hidden_size=576, intermediate_size=1536, query_heads=9,
    kv_heads=3, head_dim=64, vocabulary=49152, context_tokens=8192, tied_embeddings=True,
)  # fmt: skip
MISTRAL_7B = ModelShape(
    architecture="llama", layers=32, hidden_size=4096, intermediate_size=14336, query_heads=32,
    kv_heads=8, head_dim=128, vocabulary=32000, context_tokens=32768, tied_embeddings=False,
)  # fmt: skip


def a_class(
    name: str,
    memory: str | None = "24G",
    price: str | None = None,
    nodes: int | None = 1,
    resource_name: str = "nvidia.com/gpu",
) -> AcceleratorClass:
    spec = {"resourceName": resource_name, "memory": memory, "price": {"perHour": price}}
    status = AcceleratorClassStatus(nodes=nodes)
    return AcceleratorClass(name, AcceleratorClassSpec.model_validate(spec), status)


def a_spec(*accelerators: str, **parts: Any) -> LLMDeploymentSpec:
    hardware = {"accelerators": list(accelerators)}
    model = {"source": "pvc://models"} | parts.pop("model", {})
    return LLMDeploymentSpec.model_validate({"model": model, "hardware": hardware, **parts})


L4, H100 = a_class("l4", "24.15G", "0.805"), a_class("h100", "85.5G", "6.88")
T4 = a_class("t4", "16G", "0.526", nodes=0)
CPU = a_class("cpu", "4Gi", resource_name="cpu")


@pytest.mark.parametrize(
    ("named", "classes", "chosen"),
    [
        ((), (H100, L4), "l4"),
        (("h100",), (H100, L4), "h100"),
        ((), (CPU, L4), "l4"),
        ((), (CPU,), "cpu"),
        ((), (T4, L4), "l4"),
        (("t4", "l4"), (T4, L4), "t4"),
        ((), (a_class("b"), a_class("a")), "a"),
    ],
    ids=[
        "the cheapest of the cluster",
        "the one that is named, however dear",
        "one with a price before one without",
        "one without a price where there is no other",
        "never one without nodes that nobody named",
        "one without nodes where it is named, for the cluster may grow",
        "the first by name among equals",
    ],
)
def test_chosen_is(
    named: tuple[str, ...], classes: tuple[AcceleratorClass, ...], chosen: str
) -> None:
    choice = choose(a_spec(*named), SMOLLM2, classes)

    assert choice.reason is ChoiceReason.FITS
    assert choice.accelerator is not None
    assert choice.accelerator.name == chosen


def test_a_model_too_large_for_the_cheapest_goes_to_the_next() -> None:
    choice = choose(a_spec("t4", "l4", "h100"), MISTRAL_7B, (T4, L4, H100))

    assert choice.accelerator is L4
    assert choice.because.startswith("l4: needs 18.7 GiB")
    assert choice.because.endswith("at 0.805 USD/h the cheapest of 2 that fit")
    assert choice.rejected["t4"].startswith("needs 18.7 GiB")
    assert choice.rejected["h100"] == "costs 6.88 USD/h, l4 0.805 USD/h"


@pytest.mark.parametrize(
    ("spec", "classes", "reason", "says"),
    [
        (a_spec(), (), ChoiceReason.NO_ACCELERATOR, "the cluster has none"),
        (a_spec(), (T4,), ChoiceReason.NO_ACCELERATOR, "no node of the cluster has it (t4)"),
        (
            a_spec("a100"),
            (L4,),
            ChoiceReason.NO_ACCELERATOR,
            "there is no AcceleratorClass of this name (a100)",
        ),
        (
            a_spec(),
            (a_class("odd", memory=None),),
            ChoiceReason.NO_ACCELERATOR,
            "set its spec.memory (odd)",
        ),
        (a_spec(), (L4, CPU), ChoiceReason.DOES_NOT_FIT, "nearest is l4: needs 32.1 GiB"),
        (
            a_spec(model={"maxContextTokens": 300_000}),
            (L4,),
            ChoiceReason.CONTEXT_TOO_LONG,
            "spec.model.maxContextTokens is 300,000, but the model was trained for 131,072",
        ),
    ],
    ids=["no class", "no node", "a wrong name", "no memory", "too large", "too long a context"],
)
def test_where_nothing_can_run_the_words_say_why(
    spec: LLMDeploymentSpec, classes: tuple[AcceleratorClass, ...], reason: ChoiceReason, says: str
) -> None:
    shape = MISTRAL_7B.model_copy(update={"context_tokens": 131_072})

    choice = choose(spec, shape, classes)

    assert choice.accelerator is None
    assert choice.reason is reason
    assert says in choice.because


def test_many_classes_that_fail_alike_are_told_once() -> None:
    choice = choose(a_spec(), SMOLLM2, [a_class(name, nodes=0) for name in "edcba"])

    assert choice.because == (
        "no AcceleratorClass can be chosen: no node of the cluster has it (a, b, c and 2 more)"
    )


@pytest.mark.parametrize(
    ("quantization", "accelerator", "advice"),
    [
        ("None", L4, "lower spec.model.maxContextTokens, set spec.quantization to Int8 or allow"),
        ("Int8", L4, "lower spec.model.maxContextTokens, set spec.quantization to Int4 or allow"),
        ("FP8", L4, "lower spec.model.maxContextTokens, set spec.quantization to Int4 or allow"),
        ("Int4", L4, "lower spec.model.maxContextTokens or allow an accelerator with more memory"),
        ("Int4", CPU, "or raise spec.template.resources.limits.memory"),
    ],
)
def test_the_advice_names_only_what_would_help(
    quantization: str, accelerator: AcceleratorClass, advice: str
) -> None:
    shape = MISTRAL_7B.model_copy(update={"context_tokens": 131_072})

    choice = choose(a_spec(quantization=quantization), shape, (accelerator,))

    assert advice in choice.because


@pytest.mark.parametrize(
    ("resources", "total_bytes"),
    [
        ({}, 4 * 2**30),
        ({"requests": {"memory": "2Gi"}}, 2 * 2**30),
        ({"requests": {"memory": "2Gi"}, "limits": {"memory": "3Gi"}}, 3 * 2**30),
        ({"limits": {"cpu": "2"}}, 4 * 2**30),
    ],
    ids=["the class", "the request", "the limit before the request", "the class, if only cpu"],
)
def test_on_the_cpu_memory_is_that_of(resources: dict[str, Any], total_bytes: int) -> None:
    memory = memory_of(CPU, a_spec(template={"resources": resources}))

    assert memory is not None
    assert (memory.total_bytes, memory.dtype_bytes) == (total_bytes, 4)


def test_on_an_accelerator_the_hosts_memory_does_not_count() -> None:
    memory = memory_of(L4, a_spec(template={"resources": {"limits": {"memory": "2Gi"}}}))

    assert memory is not None
    assert (memory.total_bytes, memory.dtype_bytes) == (24_150_000_000, 2)


CLASSES = st.lists(
    st.builds(
        a_class,
        name=st.sampled_from("abcdefgh"),
        memory=st.none() | st.integers(1, 200).map(lambda size: f"{size}G"),
        price=st.none() | st.decimals(0, 20, places=2).map(str),
        nodes=st.none() | st.integers(0, 3),
        resource_name=st.sampled_from(["cpu", "nvidia.com/gpu"]),
    ),
    unique_by=lambda each: each.name,
)


@given(CLASSES, st.lists(st.sampled_from("abcdefghx"), unique=True, max_size=4))
def test_every_class_is_chosen_or_told_why_not(
    classes: list[AcceleratorClass], named: list[str]
) -> None:
    choice = choose(a_spec(*named), MISTRAL_7B, classes)

    chosen = {choice.accelerator.name} if choice.accelerator else set()
    assert chosen | choice.rejected.keys() == {each.name for each in classes} | {*named}
    assert chosen.isdisjoint(choice.rejected)
    assert bool(chosen) == (choice.reason is ChoiceReason.FITS)
    if choice.accelerator:
        assert choice.fit is not None
        assert choice.fit.fits
        assert not named or choice.accelerator.name in named


@given(CLASSES)
def test_the_order_of_the_classes_decides_nothing(classes: list[AcceleratorClass]) -> None:
    assert choose(a_spec(), MISTRAL_7B, classes) == choose(a_spec(), MISTRAL_7B, classes[::-1])


@given(CLASSES)
def test_one_more_dear_class_changes_no_choice(classes: list[AcceleratorClass]) -> None:
    before = choose(a_spec(), MISTRAL_7B, classes)
    dear = a_class("zz", "200G", "999.00")
    after = choose(a_spec(), MISTRAL_7B, [*classes, dear])

    price = before.accelerator.spec.price.per_h if before.accelerator else None
    if price is not None and price < Decimal(999):
        assert after.accelerator == before.accelerator
