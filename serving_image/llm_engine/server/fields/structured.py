"""The fields that ask for a text of a certain form, in OpenAI's words and in vLLM's."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, Self

from pydantic import Field, JsonValue, model_validator

from llm_engine.sampling.grammar import choice_grammar, json_grammar, regex_grammar
from llm_engine.server.fields.model import RequestModel, refused

MOST_SCHEMA_CHARACTERS: Final = 65_536
MOST_REGEX_CHARACTERS: Final = 8_192
MOST_TEXTS: Final = 1_024

Schema = dict[str, JsonValue]
Wanted = Schema | str | list[str]
"""A JSON schema, a regular expression, or the texts to choose among."""

ANY_OBJECT: Final[Schema] = {"type": "object"}


class JsonSchema(RequestModel):
    """A named schema; `strict` changes nothing, since the schema always binds."""

    name: str = Field(max_length=64)
    description: str | None = None
    schema_: Schema = Field(default=ANY_OBJECT, alias="schema")
    strict: bool | None = None


class ResponseFormat(RequestModel):
    """OpenAI's way to ask for JSON."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise refused("response_format", "json_schema goes with the type json_schema only")
        return self


class StructuredOutputs(RequestModel):
    """vLLM's way to ask for a form; exactly one is given."""

    json_: Schema | str | None = Field(default=None, alias="json")
    regex: str | None = Field(default=None, min_length=1)
    choice: list[str] | None = Field(default=None, min_length=1, max_length=MOST_TEXTS)
    json_object: bool | None = None

    @model_validator(mode="after")
    def _one_of_all(self) -> Self:
        if sum(form is not None for form in self.forms().values()) != 1:
            raise refused(
                "structured_outputs", "structured_outputs takes one of json, regex, choice"
            )
        return self

    def forms(self) -> dict[str, Wanted | None]:
        """Return every form, by its field."""
        return {
            "structured_outputs.json": _schema(self.json_, "structured_outputs.json"),
            "structured_outputs.regex": self.regex,
            "structured_outputs.choice": self.choice,
            "structured_outputs.json_object": ANY_OBJECT if self.json_object else None,
        }


@dataclass(frozen=True)
class Form:
    """What a text must follow, and the field that asks for it."""

    field: str
    grammar: str


class StructuredFields(RequestModel):
    """All fields that ask for a form; at most one may."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | str | None = None
    guided_regex: str | None = Field(default=None, min_length=1)
    guided_choice: list[str] | None = Field(default=None, min_length=1, max_length=MOST_TEXTS)

    @cached_property
    def form(self) -> Form | None:
        """The form that is asked for; None: any text will do. Raises a refusal of its field."""
        found = [(name, form) for name, form in self._forms().items() if form is not None]
        if not found:
            return None
        if len(found) > 1:
            raise refused(found[1][0], f"{found[1][0]} cannot go together with {found[0][0]}")
        ((name, form),) = found
        return Form(name, _grammar(name, form))

    def _forms(self) -> dict[str, Wanted | None]:
        forms: dict[str, Wanted | None] = {
            "response_format": self._response_schema(),
            "guided_json": _schema(self.guided_json, "guided_json"),
            "guided_regex": self.guided_regex,
            "guided_choice": self.guided_choice,
        }
        return forms if self.structured_outputs is None else forms | self.structured_outputs.forms()

    def _response_schema(self) -> Schema | None:
        if self.response_format is None or self.response_format.type == "text":
            return None
        named = self.response_format.json_schema
        return ANY_OBJECT if named is None else named.schema_


def _schema(value: Schema | str | None, name: str) -> Schema | None:
    """Return a schema; vLLM's clients may send it as text."""
    if not isinstance(value, str):
        return value
    try:
        schema: Any = json.loads(value)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise refused(name, f"{name} takes a JSON schema: an object, or its text")
    return schema


def _grammar(name: str, form: Wanted) -> str:
    if isinstance(form, list):
        return choice_grammar(form)
    if isinstance(form, str):
        _check_size(name, len(form), MOST_REGEX_CHARACTERS)
        return regex_grammar(form)
    _check_size(name, len(json.dumps(form)), MOST_SCHEMA_CHARACTERS)
    return json_grammar(form)


def _check_size(name: str, characters: int, most: int) -> None:
    if characters > most:
        raise refused(name, f"{name} has {characters} characters; at most {most} are allowed")
