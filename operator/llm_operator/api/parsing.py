"""From a raw object of the API server to typed Python, or to words on what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from llm_operator.api.accelerator import AcceleratorClassSpec, AcceleratorClassStatus
from llm_operator.api.deployment_spec import LLMDeploymentSpec
from llm_operator.api.deployment_status import LLMDeploymentStatus
from llm_operator.api.wire import Wire

Part = TypeVar("Part", bound=Wire)


class InvalidObject(Exception):
    """An object that the API server should have refused; the text names every field at fault."""


@dataclass(frozen=True)
class Metadata:
    """What identifies an object and its version."""

    name: str
    namespace: str
    uid: str
    generation: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    deleting: bool


@dataclass(frozen=True)
class LLMDeployment:
    """One LLMDeployment as stored, with its defaults filled in."""

    metadata: Metadata
    spec: LLMDeploymentSpec
    status: LLMDeploymentStatus

    @property
    def served_name(self) -> str:
        """Name that clients send as `model`."""
        return self.spec.model.served_name or self.metadata.name


@dataclass(frozen=True)
class AcceleratorClass:
    """One AcceleratorClass as stored, with its defaults filled in."""

    name: str
    spec: AcceleratorClassSpec
    status: AcceleratorClassStatus = field(default_factory=AcceleratorClassStatus)


def parse_deployment(raw: Mapping[str, Any]) -> LLMDeployment:
    """Return the typed LLMDeployment.

    A part of the status that does not parse counts as absent: the operator writes it anew anyway.
    Raises InvalidObject where the spec does not parse.
    """
    return LLMDeployment(
        parse_metadata(raw),
        _parse(LLMDeploymentSpec, raw.get("spec"), "spec"),
        parse_status(raw),
    )


def parse_accelerator_class(raw: Mapping[str, Any]) -> AcceleratorClass:
    """Return the typed AcceleratorClass; raises InvalidObject where its spec does not parse."""
    spec = _parse(AcceleratorClassSpec, raw.get("spec"), "spec")
    status = _known_parts(AcceleratorClassStatus, raw.get("status"))
    return AcceleratorClass(parse_metadata(raw).name, spec, status)


def parse_status(raw: Mapping[str, Any]) -> LLMDeploymentStatus:
    """Return the typed status of a raw LLMDeployment, without the parts that do not parse."""
    return _known_parts(LLMDeploymentStatus, raw.get("status"))


def parse_metadata(raw: Mapping[str, Any]) -> Metadata:
    """Return what identifies a raw object; needs no valid spec."""
    metadata = raw.get("metadata") or {}
    return Metadata(
        name=metadata.get("name") or "",
        namespace=metadata.get("namespace") or "",
        uid=metadata.get("uid") or "",
        generation=metadata.get("generation") or 0,
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        deleting=bool(metadata.get("deletionTimestamp")),
    )


def _parse(kind: type[Part], raw: object, path: str) -> Part:
    try:
        return kind.model_validate(raw if raw is not None else {})
    except ValidationError as problem:
        raise InvalidObject(_in_words(problem, path)) from None


def _known_parts(kind: type[Part], raw: object) -> Part:
    """Return what of a status parses; `kind` must need no field."""
    if not isinstance(raw, Mapping):
        return kind()
    try:
        return kind.model_validate(raw)
    except ValidationError as problem:
        wrong = {error["loc"][0] for error in problem.errors() if error["loc"]}
        return kind.model_validate({key: part for key, part in raw.items() if key not in wrong})


def _in_words(problem: ValidationError, path: str) -> str:
    """Return one line that names every field at fault, its value and what is allowed."""
    lines = []
    for error in problem.errors(include_url=False):
        where = ".".join((path, *(str(part) for part in error["loc"])))
        what = error["msg"].removeprefix("Value error, ")
        value = error["input"]
        shown = f", not {value!r}" if isinstance(value, str | int | float) else ""
        says_value = ", not " in what or error["type"] == "missing"
        lines.append(f"{where}: {what}{'' if says_value else shown}")
    return "; ".join(lines)
