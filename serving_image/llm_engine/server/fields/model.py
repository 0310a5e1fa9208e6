"""What every request body has in common: strictness, and refusals that name a field."""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic_core import PydanticCustomError

# Fields we know and do not support, with the values that ask for nothing: those may pass.
UNSUPPORTED: Final[Mapping[str, tuple[JsonValue, ...]]] = {
    "audio": (None,),
    "function_call": (None, "none", "auto"),
    "functions": (None, []),
    "guided_grammar": (None,),
    "modalities": (None, ["text"]),
    "prediction": (None,),
    "reasoning_effort": (None,),
    "suffix": (None, ""),
    "verbosity": (None,),
    "web_search_options": (None,),
}

# Fields that say something about the caller and nothing about the answer.
WITHOUT_EFFECT: Final = (
    "metadata",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)


class RequestModel(BaseModel):
    """Strict: `"5"` is no number, and an unknown field is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


def without_unsupported(data: Mapping[str, object]) -> dict[str, object]:
    """Drop fields that change nothing; refuse those that would change the answer."""
    for name, neutral in UNSUPPORTED.items():
        if name in data and not any(_same(data[name], value) for value in neutral):
            raise PydanticCustomError(
                "unsupported", "{name} is not supported by this server", {"name": name}
            )
    passing = (*UNSUPPORTED, *WITHOUT_EFFECT)
    return {name: value for name, value in data.items() if name not in passing}


def refused(name: str, message: str) -> PydanticCustomError:
    """Return the refusal of a field whose value will not do."""
    return PydanticCustomError("refused", "{message}", {"name": name, "message": message})


def _same(value: object, neutral: object) -> bool:
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
