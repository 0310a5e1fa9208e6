"""The shipped AcceleratorClasses: every figure has a source."""

import pytest

from llm_operator.api.accelerator import AcceleratorClassSpec
from llm_operator.planner.catalogue import ROWS, Row, catalogue

NAMES = {
    "nvidia-b200", "nvidia-h200", "nvidia-h100-sxm", "nvidia-h100-pcie", "nvidia-a100-80gb",
    "nvidia-a100-40gb", "nvidia-l40s", "nvidia-l4", "nvidia-a10g", "nvidia-t4",
    "nvidia-rtx-4090", "amd-mi300x", "cpu",
}  # fmt: skip


def test_the_catalogue_has_every_class_once() -> None:
    assert catalogue().keys() == NAMES
    assert len(ROWS) == len(NAMES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_is_valid_and_has_sources(row: Row) -> None:
    spec = catalogue()[row.name]

    assert AcceleratorClassSpec.model_validate(spec).memory_bytes
    assert all(row.sources)


@pytest.mark.parametrize("name", sorted(NAMES - {"cpu"}))
def test_an_accelerator_is_found_by_its_nodes_label_and_tolerates_its_taint(name: str) -> None:
    spec = catalogue()[name]

    assert len(spec["nodeSelector"]) == 1
    assert spec["tolerations"][0]["key"] == spec["resourceName"]


def test_no_two_classes_select_the_same_nodes() -> None:
    selectors = [str(spec.get("nodeSelector")) for spec in catalogue().values()]
    assert len(set(selectors)) == len(selectors)
