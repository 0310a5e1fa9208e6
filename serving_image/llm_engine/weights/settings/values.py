"""Read values of a configuration, each checked as it is read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from pydantic import ValidationError

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.contract.shape import ModelShape
from llm_engine.weights.header import refuse

MOST_CONTEXT_TOKENS: Final = 16_777_216
"""A longer context than any model's: a larger figure is a mistake, not a model."""
LARGEST_NUMBER: Final = 1e30
"""Above it lies no setting of a model, and squares of it are infinite."""
MOST_LAYERS: Final = 1024
MOST_EXPERTS: Final = 1024
"""So for layers, and for experts of one layer."""
MOST_MLPS: Final = 1 << 17
"""And for experts of all layers: each has names and shapes of its own to be checked."""
MOST_CONFIGURATION_BYTES: Final = 32 << 20


class Values:
    """Values of a configuration; `path` is the file that a refusal names."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self._values = values

    def get(self, name: str) -> Any:
        """Return what is there, unchecked."""
        return self._values.get(name)

    def whole(self, name: str, default: int | None = None, most: int | None = None) -> int:
        """Return a whole number of at least 0, and at most `most` where that is given."""
        value = self._values.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            refuse(self.path, f"{name} is {value!r:.100}", "a whole number")
        if most is not None and value > most:
            refuse(self.path, f"{name} is {value!r:.100}", f"at most {most}")
        return value

    def positive(self, name: str, default: float | None = None) -> float:
        """Return a number above 0."""
        value = self.optional_positive(name)
        value = default if value is None else value
        if value is None:
            refuse(self.path, f"{name} is None", "a positive number")
        return value

    def optional_positive(self, name: str) -> float | None:
        """Return a number above 0, or None where there is none."""
        value = self._values.get(name)
        if value is None:
            return None
        return self._checked(name, value)

    def positives(self, name: str, count: int) -> tuple[float, ...]:
        """Return `count` numbers above 0."""
        found = self._values.get(name)
        if not isinstance(found, (list, tuple)) or len(found) != count:
            refuse(self.path, f"{name} is {found!r:.100}", f"{count} positive values")
        return tuple(self._checked(name, value) for value in found)

    def flag(self, name: str) -> bool:
        """Return a truth; false where nothing is said."""
        value = self._values.get(name)
        if not isinstance(value, bool) and value is not None:
            refuse(self.path, f"{name} is {value!r:.100}", "true or false")
        return bool(value)

    def layers(self, name: str) -> tuple[int, ...]:
        """Return a list of layers; empty where nothing is said."""
        found = self._values.get(name) or ()
        is_list = isinstance(found, (list, tuple))
        if not is_list or not all(type(layer) is int for layer in found):
            refuse(self.path, f"{name} is {found!r:.100}", "a list of layers")
        return tuple(found)

    def _checked(self, name: str, value: Any) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 < value <= LARGEST_NUMBER:
            refuse(self.path, f"{name} is {value!r:.100}", "a positive number")
        return float(value)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file, or refuse the model."""
    try:
        if path.stat().st_size > MOST_CONFIGURATION_BYTES:
            refuse(path, f"{path.stat().st_size} bytes", f"at most {MOST_CONFIGURATION_BYTES}")
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelRefused(
            FailureReason.INVALID_MODEL, f"{path} is missing; expected it beside the weights"
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        refuse(path, f"not readable as JSON ({error})", "a JSON object")
    if not isinstance(content, dict):
        refuse(path, f"a JSON {type(content).__name__}", "a JSON object")
    return content


def checked_shape(path: Path, **numbers: Any) -> ModelShape:
    """Build a shape whose numbers go together, or refuse the model."""
    try:
        shape = ModelShape(**numbers)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{first['loc'][0]} is {first['input']!r:.100}" if first["loc"] else "the model"
        refuse(path, where, str(first["msg"]))
    if shape.query_heads % shape.kv_heads:
        refuse(
            path,
            f"{shape.query_heads} query heads on {shape.kv_heads} key-value heads",
            "a multiple",
        )
    if shape.head_dim % 2:
        refuse(path, f"head_dim is {shape.head_dim}", "an even number")
    if shape.layers * (shape.experts or 0) > MOST_MLPS:
        found = f"{shape.experts} experts in each of {shape.layers} layers"
        refuse(path, found, f"at most {MOST_MLPS}")
    if shape.context_tokens > MOST_CONTEXT_TOKENS:
        refuse(path, f"a context of {shape.context_tokens}", f"at most {MOST_CONTEXT_TOKENS}")
    return shape


def token_ids(path: Path, value: Any) -> frozenset[int]:
    """Return the end tokens of a configuration: one id, a list of them, or None."""
    ids = () if value is None else value if isinstance(value, (list, tuple)) else (value,)
    if not all(isinstance(token, int) and token >= 0 for token in ids):
        refuse(path, f"eos_token_id is {value!r:.100}", "one token id, or a list of them")
    return frozenset(ids)


def unsupported(path: Path, found: str, known: str) -> NoReturn:
    """Refuse a sound model that this engine does not serve."""
    raise ModelRefused(FailureReason.UNSUPPORTED_MODEL, f"{path}: {found}; this engine {known}")
