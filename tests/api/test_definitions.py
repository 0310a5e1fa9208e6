"""The CRDs: small, structural, every field explained."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, Field

from llm_operator.api.definitions import definitions
from llm_operator.api.structural import structural_schema
from llm_operator.cli.generate import to_yaml

MOST_BYTES = 60_000
DEFINITIONS = definitions()
BY_PLURAL = pytest.mark.parametrize("plural", DEFINITIONS)


def fields(plural: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every field of spec and status with its path."""
    schema = DEFINITIONS[plural]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in ("spec", "status"):
        yield from below(part, schema["properties"][part])


def below(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, part in schema.get("properties", {}).items():
        yield f"{path}.{name}", part
        yield from below(f"{path}.{name}", part)
    if "items" in schema:
        yield from below(f"{path}[]", schema["items"])


@BY_PLURAL
def test_a_crd_is_small(plural: str) -> None:
    assert len(to_yaml(DEFINITIONS[plural]).encode()) <= MOST_BYTES


@BY_PLURAL
def test_every_field_has_a_description_and_an_example(plural: str) -> None:
    objects_of_kubernetes = [
        path
        for path, part in fields(plural)
        if not part.get("description", "").partition(" Example: ")[2]
    ]
    assert objects_of_kubernetes == []


@BY_PLURAL
def test_every_string_and_list_of_a_spec_is_bounded(plural: str) -> None:
    unbounded = [
        path
        for path, part in fields(plural)
        if path.startswith("spec")
        and (
            (part.get("type") == "string" and not {"maxLength", "enum"} & part.keys())
            or (part.get("type") == "array" and "maxItems" not in part)
            or ("additionalProperties" in part and "maxProperties" not in part)
        )
    ]
    assert unbounded == []


@BY_PLURAL
def test_every_rule_names_what_is_allowed(plural: str) -> None:
    for path, part in fields(plural):
        for rule in part.get("x-kubernetes-validations", ()):
            assert rule["message"], path
            assert "\n" not in rule["rule"], path


class Inner(BaseModel):
    """Inside."""

    size: int = Field(default=2, gt=0, description="How big.", examples=[3])


class Outer(BaseModel):
    """Outside."""

    inner: Inner = Field(default=Inner(), description="Of the field.")
    maybe: Inner | None = Field(default=None, description="Or not.")
    names: list[str] = Field(default=[], description="Names.", examples=[["a"]])


def test_references_are_inlined_nulls_dropped_and_defaults_left_to_the_innermost() -> None:
    size = {
        "type": "integer",
        "format": "int64",
        "minimum": 1,
        "default": 2,
        "description": "How big. Example: 3",
    }
    inner = {"type": "object", "properties": {"size": size}}
    assert structural_schema(Outer) == {
        "description": "Outside.",
        "type": "object",
        "properties": {
            "inner": inner | {"description": "Of the field.", "default": {}},
            "maybe": inner | {"description": "Or not."},
            "names": {
                "description": 'Names. Example: ["a"]',
                "type": "array",
                "items": {"type": "string"},
            },
        },
    }


class Either(BaseModel):
    """Two things at once."""

    value: int | str


def test_what_cannot_be_structural_is_refused() -> None:
    with pytest.raises(ValueError, match="not structural: 2 alternatives"):
        structural_schema(Either)
