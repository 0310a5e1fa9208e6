"""What a bare Kubernetes lacks: names for Services, and volumes. Pure: it only describes."""

from typing import Any

from e2e.cluster.node import DNS_ADDRESS
from e2e.cluster.places import Places

VOLUMES = 16
STORAGE_CLASS = "local-static"
COREFILE = """\
cluster.local:1053 in-addr.arpa:1053 {
    errors
    health :8080
    ready :8181
    kubernetes cluster.local in-addr.arpa {
        pods insecure
        ttl 5
    }
    reload 10s
}
# No one outside is asked, as nothing leaves this machine: an unknown name fails at once.
.:1053 {
    template ANY ANY . {
        rcode NXDOMAIN
    }
}
"""
LABELS = {"k8s-app": "kube-dns"}


def name_server(image: str) -> list[dict[str, Any]]:
    """Return CoreDNS with its account, rights, configuration and Service."""
    system = {"namespace": "kube-system"}
    account = {"kind": "ServiceAccount", "name": "coredns", **system}
    watched = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"],
         "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"],
         "verbs": ["list", "watch"]},
    ]  # fmt: skip
    role = {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "system:coredns",
    }
    ports = [
        {"name": "dns", "port": 53, "targetPort": 1053, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "targetPort": 1053, "protocol": "TCP"},
    ]
    return [
        _object("v1", "ServiceAccount", "coredns", **system),
        _object("rbac.authorization.k8s.io/v1", "ClusterRole", "system:coredns", rules=watched),
        _object("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "system:coredns",
                roleRef=role, subjects=[account]),
        _object("v1", "ConfigMap", "coredns", **system, data={"Corefile": COREFILE}),
        _object("v1", "Service", "kube-dns", **system, labels=LABELS,
                spec={"clusterIP": DNS_ADDRESS, "selector": LABELS, "ports": ports}),
        _object("apps/v1", "Deployment", "coredns", **system, labels=LABELS,
                spec=_name_server_deployment(image)),
    ]  # fmt: skip


def _name_server_deployment(image: str) -> dict[str, Any]:
    container = {
        "name": "coredns",
        "image": image,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "48Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    pod = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    return {
        "replicas": 1,
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": pod},
    }


def storage_class() -> dict[str, Any]:
    """Return the default StorageClass; its volumes are made beforehand, one folder each."""
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    return _object(
        "storage.k8s.io/v1", "StorageClass", STORAGE_CLASS, annotations=default,
        provisioner="kubernetes.io/no-provisioner", volumeBindingMode="Immediate",
    )  # fmt: skip


def volume(places: Places, number: int) -> dict[str, Any]:
    """Return one static PersistentVolume."""
    name = volume_name(number)
    spec = {
        "storageClassName": STORAGE_CLASS,
        "capacity": {"storage": "5Gi"},
        "accessModes": ["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"],
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": str(places.volumes / name), "type": "Directory"},
    }
    return _object("v1", "PersistentVolume", name, spec=spec)


def volume_name(number: int) -> str:
    """Return the name of a volume and of its folder."""
    return f"local-{number:02d}"


def _object(api_version: str, kind: str, name: str, **parts: Any) -> dict[str, Any]:
    metadata = {"name": name}
    for part in ("namespace", "labels", "annotations"):
        if part in parts:
            metadata[part] = parts.pop(part)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts}
