"""From a pydantic model to the structural schema that a CustomResourceDefinition wants.

Structural means: no $ref, no null beside a type, every level typed. Defaults are spelt as on the
wire, and an example goes into the description, where `kubectl explain` shows it.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from pydantic import BaseModel

from llm_operator.api.rules import KEY

Schema: TypeAlias = dict[str, Any]

_DROPPED: Final = frozenset({"title", "examples", "$defs", "$ref", "anyOf", "default"})


def structural_schema(model: type[BaseModel], *, refuses: bool = True) -> Schema:
    """Return the structural schema of a model, with its defaults, rules and examples.

    refuses  False leaves the rules out, as for a status: what was seen is never refused
    """
    raw = model.model_json_schema(by_alias=True, mode="serialization")
    schema = _structural(raw, raw.get("$defs", {}))
    return schema if refuses else _without_rules(schema)


def _structural(raw: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    known = _resolved(raw, definitions)
    schema: Schema = {}
    if "description" in known:
        schema["description"] = _described(known)
    schema |= {key: value for key, value in known.items() if key not in {*_DROPPED, "description"}}
    if known.get("x-kubernetes-preserve-unknown-fields"):
        schema.pop("additionalProperties", None)
    if "properties" in known:
        schema["properties"] = {
            name: _structural(part, definitions) for name, part in known["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            schema[key] = _structural(schema[key], definitions)
    if schema.get("type") == "integer":
        schema["format"] = "int64"
        if "exclusiveMinimum" in schema:  # a boolean in this dialect
            schema["minimum"] = schema.pop("exclusiveMinimum") + 1
    return schema | _default(known, schema)


def _without_rules(schema: Schema) -> Schema:
    kept = {key: value for key, value in schema.items() if key != KEY}
    if "properties" in kept:
        kept["properties"] = {
            name: _without_rules(part) for name, part in kept["properties"].items()
        }
    if isinstance(kept.get("items"), dict):
        kept["items"] = _without_rules(kept["items"])
    return kept


def _resolved(raw: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    """Return `raw` with what it refers to, or its one alternative beside null, merged into it.

    What `raw` says itself wins, for it knows what the part is there for.
    """
    inner: Mapping[str, Any] = {}
    if "$ref" in raw:
        inner = definitions[raw["$ref"].removeprefix("#/$defs/")]
    elif "anyOf" in raw:
        alternatives = [part for part in raw["anyOf"] if part != {"type": "null"}]
        if len(alternatives) != 1:
            raise ValueError(f"not structural: {len(alternatives)} alternatives in {dict(raw)}")
        inner = alternatives[0]
    else:
        return dict(raw)
    return _resolved(inner, definitions) | {
        key: value for key, value in raw.items() if key not in {"$ref", "anyOf"}
    }


def _described(known: Mapping[str, Any]) -> str:
    examples = known.get("examples")
    if not examples:
        return str(known["description"])
    example = examples[0]
    reads_as_number = isinstance(example, str) and example.replace(".", "").isdigit()
    plain = isinstance(example, str) and not reads_as_number
    shown = example if plain else json.dumps(example, ensure_ascii=False)
    return f"{known['description']} Example: {shown}"


def _default(known: Mapping[str, Any], schema: Schema) -> Schema:
    """Return the schema's default; {} makes the API server fill in the defaults further down.

    A default that says nothing (null, an empty list or map) is left out.
    """
    default = known.get("default")
    if "properties" in schema:
        further = any("default" in part for part in schema["properties"].values())
        return {"default": {}} if default is not None and further else {}
    return {} if default is None or default in ([], {}) else {"default": default}
