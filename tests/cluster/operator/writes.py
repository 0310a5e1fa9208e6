"""The audit log as the judge: who wrote what."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

_READS = {"get", "list", "watch"}


def writes_since(
    audit_log: Path, since_unix_s: float, namespace: str, name_prefix: str = ""
) -> list[str]:
    """Return the operator's writes in a namespace to objects whose name begins so; no Leases."""
    found = []
    for line in audit_log.read_text().splitlines():
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError:
            continue  # the last line may be half written
        target = event.get("objectRef") or {}
        if (
            event["verb"] not in _READS
            and event["stage"] == "ResponseComplete"
            and event.get("userAgent", "").startswith(("llm-operator", "kopf"))
            and target.get("namespace") == namespace
            and target.get("resource") != "leases"
            and target.get("name", "").startswith(name_prefix)
            and datetime.fromisoformat(event["stageTimestamp"]).timestamp() >= since_unix_s
        ):
            found.append(f"{event['verb']} {target.get('resource')} {target.get('name')}")
    return found
