"""kubectl as the tests use it: a user's commands, against the session's API server."""

import json
import subprocess
from typing import Any, TypeAlias

from e2e.cluster.api_server import ApiServer

Answer: TypeAlias = "subprocess.CompletedProcess[str]"

MODEL = {"source": "pvc://models/smollm2"}


def create(
    server: ApiServer,
    spec: object,
    name: str = "a",
    kind: str = "LLMDeployment",
    **more: Any,
) -> Answer:
    """Try to create an object, without leaving one behind."""
    document = {
        "apiVersion": "llm-operator.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
        **more,
    }
    return kubectl(
        server, "create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(document)
    )


def kubectl(server: ApiServer, *words: str, stdin: str | None = None) -> Answer:
    command = [str(server.kubectl), "--kubeconfig", str(server.kubeconfig), *words]
    return subprocess.run(
        command, check=False, input=stdin, capture_output=True, text=True, timeout=60
    )
