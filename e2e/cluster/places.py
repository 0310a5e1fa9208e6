"""Where the cluster keeps its files: one folder for what runs, one for what is built."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
GO_MODULES = Path(__file__).resolve().parent / "go"


@dataclass(frozen=True)
class Places:
    """`state` lives with the cluster; `store` (images) outlives it; `cache` is built once."""

    state: Path
    store: Path
    cache: Path

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig of the embedded cluster."""
        return self.state / "admin.kubeconfig"

    @property
    def logs(self) -> Path:
        """One log per component, and the API server's audit log."""
        return self.state / "logs"

    @property
    def audit_log(self) -> Path:
        """One JSON object a line: every request to the API server, at level Metadata."""
        return self.logs / "audit.log"

    @property
    def certificates(self) -> Path:
        """Keys and certificates of the running cluster."""
        return self.state / "pki"

    @property
    def containerd_socket(self) -> Path:
        """Where the kubelet and `ctr` find containerd."""
        return self.state / "containerd.sock"

    @property
    def volumes(self) -> Path:
        """One folder for each static PersistentVolume."""
        return self.state / "volumes"


def here(environ: Mapping[str, str] = os.environ) -> Places:
    """Return the places of this machine; the same for every checkout of this user.

    LLM_OPERATOR_CLUSTER_DIR and XDG_CACHE_HOME move them.
    """
    root = Path(environ.get("LLM_OPERATOR_CLUSTER_DIR", "/var/lib/llm-operator-cluster"))
    home = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Places(state=root / "run", store=root / "store", cache=home / "llm-operator")
