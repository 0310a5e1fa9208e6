"""What the cluster looked like when a story failed: everything one would ask for, in one folder."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from e2e.cluster.progress import CannotContinue
from e2e.kubectl import Kubectl

FOLDER: Final = Path(__file__).resolve().parents[1] / "build" / "e2e"
KINDS: Final = "deployments,pods,services,jobs,endpointslices,poddisruptionbudgets,leases"


def write_report(kubectl: Kubectl, story: str, namespaces: Iterable[str]) -> Path:
    """Write nodes, events, objects and logs into a folder of the story's name; return it."""
    folder = FOLDER / re.sub(r"[^\w.-]+", "-", story)
    folder.mkdir(parents=True, exist_ok=True)

    def keep(file: str, *words: str) -> None:
        try:
            text = kubectl(*words)
        except CannotContinue as error:  # part of the picture too
            text = str(error)
        (folder / file).write_text(text)

    keep("nodes.txt", "describe", "nodes")
    keep("models.txt", "describe", "llmdeployments,acceleratorclasses", "-A")
    keep("models.yaml", "get", "llmdeployments", "-A", "-o", "yaml")
    for namespace in namespaces:
        where = ("-n", namespace)
        keep(f"{namespace}.objects.txt", "get", KINDS, *where, "-o", "wide")
        keep(f"{namespace}.events.txt", "get", "events", *where, "--sort-by=.lastTimestamp")
        keep(f"{namespace}.pods.txt", "describe", "pods", *where)
        for pod in kubectl.list("pods", namespace):
            name = pod["metadata"]["name"]
            keep(f"{name}.log", "logs", name, *where, "--all-containers", "--timestamps")
            keep(f"{name}.previous.log", "logs", name, *where, "--previous")
    return folder
