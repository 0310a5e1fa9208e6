"""What the cluster is and where its parts lie, for a person or (as JSON) for a script."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from e2e.cluster import processes
from e2e.cluster.go_programs import HELM, KUBERNETES, is_built
from e2e.cluster.lifecycle import is_healthy
from e2e.cluster.places import Places


@dataclass(frozen=True)
class Status:
    """`state` is "up", "down" or "broken"; memory_bytes is what each component holds now."""

    state: str
    kubeconfig: str
    audit_log: str
    logs: str
    programs: tuple[str, ...]
    memory_bytes: dict[str, int]


def status(places: Places) -> Status:
    """Look at the processes, the API server and the files; changes nothing and builds nothing."""
    alive = [p for p in processes.recorded(places.state / "processes") if p.alive]
    state = "up" if is_healthy(places) else "broken" if places.state.exists() else "down"
    return Status(
        state=state,
        kubeconfig=str(places.kubeconfig),
        audit_log=str(places.audit_log),
        logs=str(places.logs),
        programs=tuple(str(folder) for folder in _programs(places)),
        memory_bytes={process.name: process.resident_bytes for process in alive},
    )


def as_text(found: Status) -> str:
    """Return a status for a person."""
    lines = [f"{name}: {value}" for name, value in asdict(found).items() if isinstance(value, str)]
    lines += [f"programs: {os.pathsep.join(found.programs)}"]
    total_mib = sum(found.memory_bytes.values()) / 2**20
    parts = ", ".join(f"{name} {size / 2**20:.0f}" for name, size in found.memory_bytes.items())
    return "\n".join([*lines, f"memory: {total_mib:.0f} MiB ({parts or 'nothing runs'})"])


def shell_settings(places: Places) -> str:
    """Return what `eval` needs for kubectl and helm to speak to the cluster."""
    folders = ":".join(str(folder) for folder in _programs(places))
    return f"export KUBECONFIG={places.kubeconfig}\nexport PATH={folders}:$PATH"


def _programs(places: Places) -> list[Path]:
    return [folder for module in (KUBERNETES, HELM) if (folder := is_built(places, module))]
