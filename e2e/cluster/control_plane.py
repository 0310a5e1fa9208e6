"""Command lines and files of etcd, the API server and its controllers. Pure: it runs nothing."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVICE_RANGE = "10.87.0.0/16"
SERVICE_ADDRESS = "10.87.0.1"  # of the `kubernetes` Service: the first of the range
SERVER_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True)
class ControlPlane:
    """Addresses, ports and folders of one control plane; its programs lie in `programs`."""

    programs: Path
    etcd: Path
    folder: Path
    address: str
    port: int
    etcd_port: int
    etcd_peer_port: int

    @property
    def url(self) -> str:
        """The API server's address for clients."""
        return f"https://{self.address}:{self.port}"

    @property
    def pki(self) -> Path:
        """Where certificates.make wrote."""
        return self.folder / "pki"

    def etcd_command(self) -> list[str]:
        """Serve on loopback to clients with our certificate; never wait for the disk."""
        clients = f"https://127.0.0.1:{self.etcd_port}"
        peers = f"http://127.0.0.1:{self.etcd_peer_port}"
        return [
            str(self.etcd),
            "--name=local",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=local={peers}",
            f"--cert-file={self.pki / 'server.crt'}",
            f"--key-file={self.pki / 'server.key'}",
            f"--trusted-ca-file={self.pki / 'ca.crt'}",
            "--client-cert-auth",
            "--unsafe-no-fsync",
            "--logger=zap",
            "--log-level=warn",
        ]

    def api_server_command(self) -> list[str]:
        """Authenticate by token or certificate, authorize by RBAC, keep an audit log."""
        pki = self.pki
        return [
            str(self.programs / "kube-apiserver"),
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            f"--etcd-servers=https://127.0.0.1:{self.etcd_port}",
            f"--etcd-cafile={pki / 'ca.crt'}",
            f"--etcd-certfile={pki / 'server.crt'}",
            f"--etcd-keyfile={pki / 'server.key'}",
            f"--tls-cert-file={pki / 'server.crt'}",
            f"--tls-private-key-file={pki / 'server.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--token-auth-file={pki / 'tokens.csv'}",
            f"--kubelet-client-certificate={pki / 'server.crt'}",
            f"--kubelet-client-key={pki / 'server.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki / 'service-account.pub'}",
            f"--service-account-signing-key-file={pki / 'service-account.key'}",
            f"--audit-policy-file={self.folder / 'audit-policy.json'}",
            f"--audit-log-path={self.folder / 'logs' / 'audit.log'}",
            "--audit-log-maxsize=200",
            "--audit-log-maxbackup=1",
            "--profiling=false",
        ]

    def controller_manager_command(self) -> list[str]:
        """Run every controller, each under its own service account; no port, no election."""
        pki = self.pki
        return [
            str(self.programs / "kube-controller-manager"),
            f"--kubeconfig={self.folder / 'controller-manager.kubeconfig'}",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={pki / 'service-account.key'}",
            f"--root-ca-file={pki / 'ca.crt'}",
            f"--cluster-signing-cert-file={pki / 'ca.crt'}",
            f"--cluster-signing-key-file={pki / 'ca.key'}",
            "--leader-elect=false",
            "--secure-port=0",
        ]

    def scheduler_command(self) -> list[str]:
        """Schedule with the defaults; no port, no election."""
        return [
            str(self.programs / "kube-scheduler"),
            f"--kubeconfig={self.folder / 'scheduler.kubeconfig'}",
            "--leader-elect=false",
            "--secure-port=0",
        ]

    def kubeconfig(self, user: str, token: str, authority_pem: bytes) -> dict[str, Any]:
        """Return a kubeconfig that needs no file but itself."""
        name = "llm-operator"
        cluster = {
            "server": self.url,
            "certificate-authority-data": base64.b64encode(authority_pem).decode(),
        }
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
            "current-context": name,
        }
