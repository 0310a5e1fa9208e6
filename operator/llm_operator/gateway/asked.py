"""What a client asks for, read once from the body; the body itself travels on unchanged."""

import json
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from llm_operator.gateway.refusal import invalid

BYTES_PER_TOKEN: Final = 4
"""English text has about 4 bytes per token; good enough to compare the loads of two replicas."""
EXPECTED_OUTPUT_TOKENS: Final = 256
"""Assumed where the client sets no limit."""
MOST_OUTPUT_TOKENS: Final = 4096
"""A limit beyond this is a habit, not an expectation."""
MOST_CHOICES: Final = 128


@dataclass(frozen=True)
class Asked:
    """The part of a request that the gateway decides by.

    tokens  estimate of all tokens that the request will cost a replica, prompt and output
    """

    model: str
    stream: bool
    tokens: int
    body_bytes: int


def parse(body: bytes) -> Asked:
    """Read what the gateway needs; the replica judges the rest.

    Raises Refusal (400) for anything that is not one JSON object with a model.
    """
    fields = _parse_object(body)
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise invalid("`model` must be the name of a model.", param="model")
    stream = fields.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise invalid("`stream` must be true or false.", param="stream")
    return Asked(
        model=model,
        stream=bool(stream),
        tokens=len(body) // BYTES_PER_TOKEN + _output_tokens(fields),
        body_bytes=len(body),
    )


def _output_tokens(fields: dict[str, Any]) -> int:
    """Return the output to expect; a nonsensical limit is the replica's to refuse."""
    limit = _count(fields.get("max_completion_tokens")) or _count(fields.get("max_tokens"))
    choices = _count(fields.get("n")) or 1
    return min(limit or EXPECTED_OUTPUT_TOKENS, MOST_OUTPUT_TOKENS) * min(choices, MOST_CHOICES)


def _count(value: object) -> int | None:
    """Return a positive whole number as such; whatever else it is, the replica judges it."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    return None


def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        # Decoded strictly as UTF-8: json.loads(bytes) would guess UTF-16 and swallow a BOM.
        text = body.decode("utf-8")
        fields = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        if b"\\u" in body:
            # An escaped lone surrogate is no character: it could not be encoded again.
            json.dumps(fields, ensure_ascii=False).encode()
    except RecursionError as error:
        raise invalid("The body is nested too deeply.", code="invalid_json") from error
    except ValueError as error:
        # Only the place is told: the text around it may be somebody's prompt.
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise invalid(f"The body is not valid JSON{where}.", code="invalid_json") from error
    if not isinstance(fields, dict):
        raise invalid("The body must be a JSON object.", code="invalid_json")
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key given twice: gateway and replica might each believe another one."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is given twice")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
