"""Remove every trace of a cluster, in whatever state the run that made it has ended."""

import shutil
import socket
from pathlib import Path

from e2e.cluster import cgroups, containerd, mounts, network, processes
from e2e.cluster.places import Places
from e2e.cluster.progress import CannotContinue, say

# Fixed in the kubelet, libcni and containerd; ours to remove only when nothing is left in them.
SHARED_FOLDERS = (
    "/run/containerd/s",
    "/run/containerd",
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
)


def clear(places: Places) -> None:
    """Remove what runs or was left; only the image store stays, without its containers."""
    marker = f"{places.state}/"
    running = [*processes.recorded(places.state / "processes"),
               *processes.stray(marker, processes.COMPONENTS)]  # fmt: skip
    processes.stop([p for p in running if p.name != "containerd"], grace_s=0)
    cgroups.kill()
    _remove_containers(places, [p for p in running if p.name == "containerd"])
    processes.stop(processes.stray(marker, ["containerd-shim-runc-v2"]), grace_s=0)
    cgroups.remove()
    mounts.unmount([places.state, places.store])
    network.tear_down(places.state / "ip_forward.before")
    _remove_foreign_files(places)
    if places.state.exists():
        shutil.rmtree(places.state)


def _remove_containers(places: Places, running: list[processes.Process]) -> None:
    """Take the containers out of the image store, which outlives the cluster."""
    config = "containerd-without-pods.toml"
    if not any(process.alive for process in running) and (places.state / config).exists():
        places.containerd_socket.unlink(missing_ok=True)
        containerd.start(places, config)
        running = [*running, *processes.recorded(places.state / "processes")]
    if any(process.alive for process in running):
        try:
            containerd.remove_containers(places)
        except CannotContinue as error:
            say(f"Not all containers could be removed in good order: {error}")
        processes.stop(running, grace_s=5)
    containerd.forget_pods(places)


def _remove_foreign_files(places: Places) -> None:
    """Remove what the kubelet and containerd's shims write outside of our folder."""
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(str(places.state)):
            link.unlink()
    plugins = Path("/var/lib/kubelet/device-plugins")
    if plugins.is_dir() and not Path("/var/lib/kubelet/config.yaml").exists():
        shutil.rmtree(plugins)
    for file in Path("/run/containerd/s").glob("*"):
        if file.is_socket() and not _is_answered(file):
            file.unlink()
    for folder in SHARED_FOLDERS:
        if Path(folder).is_dir() and not any(Path(folder).iterdir()):
            Path(folder).rmdir()


def _is_answered(file: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(file)) == 0
