"""Whether a child still is as it was applied: the question that keeps an operator at rest quiet.

Server-side apply would answer it too, at the price of a write request each time.
"""

import hashlib
import json
from fractions import Fraction
from typing import Any, Final, TypeAlias

from llm_operator.api.names import GROUP
from llm_operator.api.scalars import quantity

Json: TypeAlias = dict[str, Any]

APPLIED_ANNOTATION: Final = f"{GROUP}/applied"
"""Fingerprint of the manifest last applied; tells that a field which is wanted no more must go."""

_QUANTITIES: Final = frozenset({"requests", "limits", "sizeLimit"})


def signed(manifest: Json) -> Json:
    """Return the manifest with its own fingerprint among its annotations."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED_ANNOTATION: fingerprint(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def fingerprint(value: object) -> str:
    """Return 16 hexadecimal digits that change whenever the value does."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def has_drifted(wanted: Json, seen: Json) -> bool:
    """Tell whether `wanted` (signed) must be applied again over `seen`.

    Fields that only others set (defaults, a status, an injected item of a named list) are theirs.
    """
    return not _holds(wanted, seen, in_quantities=False)


def _holds(wanted: Any, seen: Any, in_quantities: bool) -> bool:
    match wanted:
        case dict():
            found = seen if isinstance(seen, dict) else {} if seen is None else None
            return found is not None and all(
                _holds(value, found.get(key), in_quantities or key in _QUANTITIES)
                for key, value in wanted.items()
            )
        case list():
            return _holds_list(wanted, seen or [], in_quantities)
        case None:
            return seen is None
        case _ if in_quantities:
            return _amount(wanted) == _amount(seen)
        case _:
            return type(wanted) is type(seen) and bool(wanted == seen)


def _holds_list(wanted: list[Any], seen: Any, in_quantities: bool) -> bool:
    if not isinstance(seen, list):
        return False
    if wanted and all(isinstance(item, dict) and "name" in item for item in wanted):
        by_name = {item.get("name"): item for item in seen if isinstance(item, dict)}
        return all(_holds(item, by_name.get(item["name"], 0), in_quantities) for item in wanted)
    return len(wanted) == len(seen) and all(
        _holds(item, other, in_quantities) for item, other in zip(wanted, seen, strict=True)
    )


def _amount(value: object) -> Fraction | object:
    """Return the value of a quantity, for the API server writes 1024Mi as 1Gi."""
    try:
        return quantity(str(value))
    except ValueError:
        return value
