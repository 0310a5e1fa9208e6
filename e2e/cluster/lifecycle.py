"""Start the cluster, look whether it is well, replace or stop it."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import certificates, cgroups, containerd, network, node, processes
from e2e.cluster.addons import VOLUMES, name_server, storage_class, volume, volume_name
from e2e.cluster.control_plane import AUDIT_POLICY, SERVER_NAMES, SERVICE_ADDRESS, ControlPlane
from e2e.cluster.go_programs import COREDNS, HELM, KUBERNETES, PAUSE, built, locked
from e2e.cluster.inputs import key
from e2e.cluster.oci import program_image
from e2e.cluster.places import Places
from e2e.cluster.prerequisites import RUN_PACKAGES, install, program, require_root
from e2e.cluster.progress import CannotContinue, run, say, step
from e2e.cluster.readiness import is_ready, wait_for_api
from e2e.cluster.removal import clear

CAP_SYS_RESOURCE = 24
# A cluster that other versions of these files have started is replaced.
CONFIGURING = ("addons.py", "certificates.py", "cgroups.py", "control_plane.py", "lifecycle.py",
               "network.py", "node.py")  # fmt: skip


@dataclass(frozen=True)
class Programs:
    """Folders of the built programs."""

    kubernetes: Path
    coredns: Path
    pause: Path
    helm: Path

    @property
    def fingerprint(self) -> str:
        """Say which cluster these programs and this code make; a running one must be the same."""
        folders = (self.kubernetes, self.coredns, self.pause)
        return key(Path(__file__).parent, CONFIGURING, [folder.name for folder in folders])


def programs(places: Places) -> Programs:
    """Return the programs, building what is not built yet."""
    return Programs(
        kubernetes=built(places, KUBERNETES),
        coredns=built(places, COREDNS),
        pause=built(places, PAUSE),
        helm=built(places, HELM),
    )


def up(places: Places, *, fresh: bool = False) -> None:
    """Leave a healthy cluster of this code running; does little when there is one already.

    With `fresh` a running one is replaced, so that nothing of what it held remains.
    """
    require_root()
    install(RUN_PACKAGES)
    ours = programs(places)
    with locked(places.store.parent / "lock"):
        why = "as was asked" if fresh else _why_replace(places, ours)
        if why is None:
            _recycle_volumes(places, ours)
            say(f"The cluster is up already. KUBECONFIG={places.kubeconfig}")
            return
        if places.state.exists():
            say(f"Replacing the cluster that is there: {why}.")
        clear(places)
        with step("Starting the cluster"):
            _start(places, ours)
    say(f"The cluster is up. KUBECONFIG={places.kubeconfig}")


def down(places: Places, *, purge: bool) -> None:
    """Stop the cluster and remove all of it but the image store; that too with `purge`."""
    require_root()
    with locked(places.store.parent / "lock"), step("Removing the cluster"):
        clear(places)
        if purge:
            shutil.rmtree(places.store, ignore_errors=True)


def is_healthy(places: Places) -> bool:
    """Whether every component runs and the API server says it is ready."""
    found = {process.name: process for process in processes.recorded(places.state / "processes")}
    return all(name in found and found[name].alive for name in processes.COMPONENTS) and is_ready(
        f"https://{node.NODE_ADDRESS}:{node.API_PORT}", places.certificates / "ca.crt"
    )


def _kubectl(places: Places, ours: Programs, *words: str, input_text: str | None = None) -> str:
    """Run kubectl as the administrator."""
    where = ["--kubeconfig", str(places.kubeconfig)]
    return run([ours.kubernetes / "kubectl", *where, *words], input_text=input_text, timeout_s=120)


def _why_replace(places: Places, ours: Programs) -> str | None:
    """Say why a new cluster must be started; None when the one that runs will do."""
    fingerprint = places.state / "fingerprint"
    if not fingerprint.exists():
        return "it was never started to the end"
    if fingerprint.read_text() != ours.fingerprint:
        return "another version of this code has started it"
    return None if is_healthy(places) else "not all of it runs any more"


def _start(places: Places, ours: Programs) -> None:
    for folder in (places.logs, places.state / "cni", places.store, places.volumes):
        folder.mkdir(parents=True, exist_ok=True)
    plane = ControlPlane(
        programs=ours.kubernetes, etcd=program("etcd"), folder=places.state,
        address=node.NODE_ADDRESS, port=node.API_PORT,
        etcd_port=node.ETCD_PORT, etcd_peer_port=node.ETCD_PEER_PORT,
    )  # fmt: skip
    network.set_up(places.state / "ip_forward.before")
    cgroups.create()
    _write_files(places, ours, plane)
    _daemon(places, "etcd", plane.etcd_command())
    _daemon(places, "kube-apiserver", plane.api_server_command())
    containerd.start(places, "containerd.toml")
    _load_images(places, ours)
    # Not before it answers: the others would give up, or try again ever more rarely.
    wait_for_api(places.state / "processes", plane.url, plane.pki / "ca.crt", places.logs)
    _daemon(places, "kube-controller-manager", plane.controller_manager_command())
    _daemon(places, "kube-scheduler", plane.scheduler_command())
    _daemon(places, "kubelet", node.kubelet_command(ours.kubernetes, places))
    proxy = [str(ours.kubernetes / "kube-proxy"), f"--config={places.state / 'proxy.json'}"]
    _daemon(places, "kube-proxy", proxy)
    _add_on(places, ours)
    # Last: a state without it was not started to the end.
    (places.state / "fingerprint").write_text(ours.fingerprint)


def _daemon(places: Places, name: str, command: list[str]) -> None:
    processes.start(places.state / "processes", name, command, places.logs / f"{name}.log")


def _write_files(places: Places, ours: Programs, plane: ControlPlane) -> None:
    addresses = ["127.0.0.1", node.NODE_ADDRESS, SERVICE_ADDRESS]
    certificates.make(plane.pki, addresses, SERVER_NAMES)
    tokens = certificates.make_tokens(plane.pki / "tokens.csv", node.NODE)
    authority = (plane.pki / "ca.crt").read_bytes()
    for file, user in (
        ("admin", "admin"),
        ("controller-manager", "system:kube-controller-manager"),
        ("scheduler", "system:kube-scheduler"),
        ("proxy", "system:kube-proxy"),
        ("kubelet", f"system:node:{node.NODE}"),
    ):
        path = places.state / f"{file}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(node.as_file(plane.kubeconfig(user, tokens[user], authority)))
    write = {
        "audit-policy.json": node.as_file(AUDIT_POLICY),
        "kubelet.json": node.as_file(node.kubelet_config(places)),
        "proxy.json": node.as_file(node.proxy_config(places)),
        "cni/10-network.conflist": node.as_file(node.network_list(places)),
        "containerd-without-pods.toml": node.containerd_without_pods(places),
        "containerd.toml": node.containerd_config(
            places,
            pause_image=_image_name("pause", ours.pause),
            may_lower_oom_score=_has_capability(CAP_SYS_RESOURCE),
        ),
    }
    for name, text in write.items():
        (places.state / name).write_text(text)


def _has_capability(number: int) -> bool:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> number & 1)


def _image_name(name: str, folder: Path) -> str:
    return f"localhost/llm-operator/{name}:{folder.name.rpartition('-')[2]}"


def _load_images(places: Places, ours: Programs) -> None:
    there = containerd.image_names(places)
    for name, folder in (("pause", ours.pause), ("coredns", ours.coredns)):
        image = _image_name(name, folder)
        if image not in there:
            containerd.import_archive(places, program_image(image, folder / name))


def _add_on(places: Places, ours: Programs) -> None:
    for number in range(1, VOLUMES + 1):
        _empty_volume(places.volumes / volume_name(number))
    volumes = [volume(places, number) for number in range(1, VOLUMES + 1)]
    objects = [*name_server(_image_name("coredns", ours.coredns)), storage_class(), *volumes]
    _apply(places, ours, objects)
    deadline_s = time.monotonic() + 60
    while f"node/{node.NODE}" not in _kubectl(places, ours, "get", "nodes", "-o", "name"):
        if time.monotonic() > deadline_s:
            raise CannotContinue(
                f"the kubelet registers no node; see {places.logs / 'kubelet.log'}"
            )
        time.sleep(0.1)
    _kubectl(places, ours, "wait", "--for=condition=Ready", f"node/{node.NODE}", "--timeout=60s")
    _kubectl(places, ours, "-n", "kube-system", "wait", "--for=condition=Available",
            "deployment/coredns", "--timeout=60s")  # fmt: skip


def _apply(places: Places, ours: Programs, objects: list[dict[str, object]]) -> None:
    everything = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    _kubectl(places, ours, "apply", "--server-side", "-f", "-", input_text=everything)


def _empty_volume(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(0o777)  # pods run as any user, and a hostPath is never given to them


def _recycle_volumes(places: Places, ours: Programs) -> None:
    """Make volumes whose claim is gone usable again, empty."""
    found = json.loads(_kubectl(places, ours, "get", "persistentvolumes", "-o", "json"))
    for item in found["items"]:
        name = item["metadata"]["name"]
        if item["status"].get("phase") == "Released" and name.startswith("local-"):
            _kubectl(places, ours, "delete", "persistentvolume", name)
            _empty_volume(places.volumes / name)
            _apply(places, ours, [volume(places, int(name.rpartition("-")[2]))])
