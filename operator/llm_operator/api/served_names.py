"""Which LLMDeployment answers to which model name; gateway and operator judge alike."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, order=True)
class NameClaim:
    """One LLMDeployment's claim on a served name; the smallest claim wins.

    created  metadata.creationTimestamp: RFC 3339 in UTC, so it sorts as text
    """

    created: str
    namespace: str
    name: str
    served_name: str = field(compare=False)


def claim_of(deployment: Mapping[str, Any]) -> NameClaim | None:
    """Return the claim of a raw LLMDeployment; None once it is being deleted."""
    metadata = deployment["metadata"]
    if metadata.get("deletionTimestamp"):
        return None
    model = deployment.get("spec", {}).get("model") or {}
    return NameClaim(
        created=metadata.get("creationTimestamp") or "",
        namespace=metadata.get("namespace") or "",
        name=metadata["name"],
        served_name=model.get("servedName") or metadata["name"],
    )


def name_owners(claims: Iterable[NameClaim]) -> dict[str, NameClaim]:
    """Return the claim that holds each served name: first created, then by namespace and name."""
    owners: dict[str, NameClaim] = {}
    for claim in sorted(claims):
        owners.setdefault(claim.served_name, claim)
    return owners
