"""How the custom resources look in Python: frozen, snake_case, camelCase on the wire."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """A part of a custom resource.

    Fields this version does not know are dropped when read: the API server has refused what a
    user misspelt, and an object written by a newer operator must not stop an older one.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True
    )

    def to_wire(self) -> dict[str, Any]:
        """Return the object as the API server stores it; what is None is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
