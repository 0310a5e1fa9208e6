import base64
import ipaddress
import json
import platform
import tomllib
from pathlib import Path

import pytest

from e2e.cluster import addons, mounts, node, prerequisites, progress
from e2e.cluster.control_plane import SERVICE_ADDRESS, SERVICE_RANGE, ControlPlane
from e2e.cluster.places import Places, here

PLACES = Places(state=Path("/s/run"), store=Path("/s/store"), cache=Path("/c"))
PLANE = ControlPlane(
    programs=Path("/bin/k"), etcd=Path("/bin/etcd"), folder=Path("/s/run"), address="10.88.0.1",
    port=16443, etcd_port=1, etcd_peer_port=2,
)  # fmt: skip


@pytest.mark.parametrize("may_lower", [True, False])
def test_containerd_keeps_to_our_folders_and_knows_what_it_may(may_lower: bool) -> None:
    config = tomllib.loads(
        node.containerd_config(PLACES, pause_image="pause:1", may_lower_oom_score=may_lower)
    )
    pods = config["plugins"]["io.containerd.grpc.v1.cri"]

    assert pods["restrict_oom_score_adj"] is not may_lower
    assert pods["sandbox_image"] == "pause:1"
    assert config["root"].startswith("/s/store/")
    assert config["state"].startswith("/s/run/")


def test_containerd_for_clearing_up_shares_its_folders_with_the_real_one() -> None:
    real = tomllib.loads(node.containerd_config(PLACES, pause_image="p", may_lower_oom_score=False))
    clearing = tomllib.loads(node.containerd_without_pods(PLACES))

    assert [real[k] for k in ("root", "state", "grpc")] == [
        clearing[k] for k in ("root", "state", "grpc")
    ]
    assert clearing["disabled_plugins"] == ["io.containerd.grpc.v1.cri"]


def test_ranges_do_not_overlap_and_hold_their_addresses() -> None:
    pods, services = map(ipaddress.ip_network, (node.POD_RANGE, SERVICE_RANGE))
    address = ipaddress.ip_address(node.NODE_ADDRESS)

    assert not pods.overlaps(services)
    assert address not in pods
    assert address not in services
    assert ipaddress.ip_address(node.DNS_ADDRESS) in services
    assert ipaddress.ip_address(SERVICE_ADDRESS) == services[1]


def test_every_file_of_the_kubelet_lies_in_our_folder() -> None:
    config = node.kubelet_config(PLACES)
    paths = [config["podLogsDir"], config["volumePluginDir"]]
    paths += [w.split("=")[1] for w in node.kubelet_command(Path("/bin"), PLACES) if "dir=" in w]

    assert len(paths) == 4
    assert all(path.startswith("/s/run/") for path in paths)


def test_a_kubeconfig_needs_no_other_file() -> None:
    config = PLANE.kubeconfig("admin", "secret", b"PEM")
    cluster = config["clusters"][0]["cluster"]

    assert cluster["server"] == "https://10.88.0.1:16443"
    assert base64.b64decode(cluster["certificate-authority-data"]) == b"PEM"
    assert "/" not in json.dumps(config["users"])


def test_etcd_and_the_api_server_agree() -> None:
    etcd, server = PLANE.etcd_command(), PLANE.api_server_command()

    assert "--listen-client-urls=https://127.0.0.1:1" in etcd
    assert "--etcd-servers=https://127.0.0.1:1" in server
    assert "--client-cert-auth" in etcd


def test_volumes_are_distinct_and_of_the_default_class() -> None:
    volumes = [addons.volume(PLACES, n) for n in range(1, addons.VOLUMES + 1)]
    kind = addons.storage_class()

    assert len({v["spec"]["hostPath"]["path"] for v in volumes}) == 16
    assert {v["spec"]["storageClassName"] for v in volumes} == {kind["metadata"]["name"]}
    assert kind["metadata"]["annotations"] == {
        "storageclass.kubernetes.io/is-default-class": "true"
    }


def test_the_environment_moves_the_places() -> None:
    places = here({"LLM_OPERATOR_CLUSTER_DIR": "/x", "XDG_CACHE_HOME": "/y"})

    assert (places.state, places.store) == (Path("/x/run"), Path("/x/store"))
    assert places.cache == Path("/y/llm-operator")


def test_mounts_below_a_folder_come_deepest_first() -> None:
    mountinfo = (
        "1 0 8:1 / / rw - ext4 /dev/vda rw\n"
        "2 1 0:1 / /s/run rw - tmpfs tmpfs rw\n"
        "3 2 0:2 / /s/run/pods/a\\040b rw - tmpfs tmpfs rw\n"
        "4 1 0:3 / /s/runner rw - tmpfs tmpfs rw\n"
    )

    assert mounts.below(Path("/s/run"), mountinfo) == ["/s/run/pods/a b", "/s/run"]


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prerequisites, "find", lambda _name: None)

    with pytest.raises(progress.CannotContinue, match="apt-get install nftables"):
        prerequisites.program("nft")


def test_another_system_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")

    with pytest.raises(progress.CannotContinue, match=r"not on Darwin.*CLUSTER=current"):
        prerequisites.require_root()
