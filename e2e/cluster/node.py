"""Configuration of the one node: containerd, its network plugin, kubelet, kube-proxy. Pure."""

import json
from pathlib import Path
from typing import Any

from e2e.cluster.places import Places

NODE = "local-node"
CGROUP = "llm-operator-cluster"  # every container's cgroup lies below this one
NETWORK = "llm-operator-cluster"
# Ranges that are routed to a bridge of ours without ports: nothing sent to them leaves the machine.
POD_RANGE = "10.86.0.0/16"
NODE_ADDRESS = "10.88.0.1"
DNS_ADDRESS = "10.87.0.10"
API_PORT, KUBELET_PORT, ETCD_PORT, ETCD_PEER_PORT = 16443, 10250, 12379, 12380


def containerd_config(places: Places, *, pause_image: str, may_lower_oom_score: bool) -> str:
    """Return containerd's config.toml.

    Without CAP_SYS_RESOURCE runc dies when it lowers an OOM score, hence `may_lower_oom_score`.
    """
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""\
version = 2
root = "{places.store / "containerd"}"
state = "{places.state / "containerd"}"

[grpc]
  address = "{places.containerd_socket}"

[{cri}]
  sandbox_image = "{pause_image}"
  restrict_oom_score_adj = {str(not may_lower_oom_score).lower()}
  # The network namespaces' mounts go away with our own folder.
  netns_mounts_under_state_dir = true

[{cri}.cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{places.state / "cni"}"

[{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[{cri}.containerd.runtimes.runc.options]
  SystemdCgroup = false
  Root = "{places.state / "runc"}"
"""


def containerd_without_pods(places: Places) -> str:
    """Return a configuration with images and containers but no pods, for clearing up."""
    return f"""\
version = 2
root = "{places.store / "containerd"}"
state = "{places.state / "containerd"}"
disabled_plugins = ["io.containerd.grpc.v1.cri"]

[grpc]
  address = "{places.containerd_socket}"
"""


def network_list(places: Places) -> dict[str, Any]:
    """Return the CNI configuration: each pod on a wire of its own to the host.

    Not a bridge: between two pods of one bridge the answer would not pass the host's address
    translation, and a Service would answer from the wrong address where br_netfilter is missing.
    """
    addresses = {
        "type": "host-local",
        "dataDir": str(places.state / "cni-addresses"),
        "ranges": [[{"subnet": POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    wire = {"type": "ptp", "ipMasq": False, "ipam": addresses}
    return {"cniVersion": "0.4.0", "name": NETWORK, "plugins": [wire]}


def kubelet_config(places: Places) -> dict[str, Any]:
    """Return the kubelet's configuration: one lenient node that keeps to our folder."""
    tight = dict.fromkeys(("nodefs.available", "nodefs.inodesFree", "imagefs.available"), "1%")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "port": KUBELET_PORT,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(places.certificates / "ca.crt")},
        },
        # Of those whom our authority has signed: of the API server.
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{places.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "100Mi", **tight},
        "imageGCHighThresholdPercent": 100,  # never: images come from no registry
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "podLogsDir": str(places.state / "pod-logs"),
        "volumePluginDir": str(places.state / "volume-plugins"),
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,  # kube-proxy needs nftables only; nothing to clear up
        "nodeStatusUpdateFrequency": "5s",
        "logging": {"verbosity": 1},
    }


def kubelet_command(programs: Path, places: Places) -> list[str]:
    """Return the kubelet's command line."""
    return [
        str(programs / "kubelet"),
        f"--config={places.state / 'kubelet.json'}",
        f"--kubeconfig={places.state / 'kubelet.kubeconfig'}",
        f"--root-dir={places.state / 'kubelet'}",
        f"--cert-dir={places.state / 'kubelet' / 'pki'}",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_ADDRESS}",
    ]


def proxy_config(places: Places) -> dict[str, Any]:
    """Return kube-proxy's configuration: nftables, node ports on the node's own address only."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(places.state / "proxy.kubeconfig")},
        "hostnameOverride": NODE,
        "clusterCIDR": POD_RANGE,
        "nodePortAddresses": [f"{NODE_ADDRESS}/32"],
        "healthzBindAddress": "127.0.0.1:20256",
        "metricsBindAddress": "127.0.0.1:20249",
        # Leave the machine's connection tracking as it is.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s",
                      "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "100ms"},
    }  # fmt: skip


def as_file(config: dict[str, Any]) -> str:
    """Return a configuration as JSON, which Kubernetes reads as YAML."""
    return json.dumps(config, indent=2) + "\n"
